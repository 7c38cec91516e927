"""Tiny models, for tests: ours, and those of whoever builds on silotune."""
