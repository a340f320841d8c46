"""State to store and back, at the end of an epoch and inside it."""
