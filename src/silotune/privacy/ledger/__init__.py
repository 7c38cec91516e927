"""The ledger: what was charged, written before anything leaves."""
