"""The ledger for life: what a silo's records have paid, over all runs, whoever names them."""
