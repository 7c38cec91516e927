"""Audits: membership inference on the code that trains, and the lower bounds that it gives."""
