"""What all policies share: pool, floor, revisit, label noise, difficulty."""
