"""Where the numbers are: what a trainer has in hand, and what it asks of the orchestration."""
