"""What a store knows of a run: its plans, its inputs, which stages are done, and why not."""
