"""Floor 7: one run from its configuration to its result folder."""
