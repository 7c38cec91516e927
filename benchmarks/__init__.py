"""Benchmarks: every figure is a ratio to a peer that runs in turn in the same process."""
