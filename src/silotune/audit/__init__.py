"""Audits: attacks on the code that trains, and the lower bounds that they give."""
