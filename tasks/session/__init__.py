"""A run at work: session, interruption, watch."""
