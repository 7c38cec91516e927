"""The certificate: what a run guarantees, issued, put into words and verified."""
