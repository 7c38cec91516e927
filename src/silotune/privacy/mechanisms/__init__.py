"""Mechanisms: clipping, sampling and noise, and what owns all three."""
