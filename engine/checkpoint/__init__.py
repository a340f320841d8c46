"""State to tensors and back; averaging; warm start."""
