"""Training state written to the store and read back, at the end of an epoch and inside it."""
