"""Which samples the next epoch trains on: pure functions over sample tables."""
