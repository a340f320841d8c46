"""The learning rate as pieces."""
