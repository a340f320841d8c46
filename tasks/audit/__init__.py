"""Stored epochs computed again, and compared."""
