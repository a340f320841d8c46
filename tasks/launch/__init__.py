"""Who computes: a trainer process of its own, or this process; and how the two sides talk."""
