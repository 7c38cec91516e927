"""Accounting: what releases cost, and the noise that a budget needs."""
