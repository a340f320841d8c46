"""Runs side by side: what differs in config and code, what they share, where they part."""
