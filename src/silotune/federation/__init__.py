"""One federation, from its configuration to its result folder."""
