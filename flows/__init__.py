"""Flows and the command line: they compose tasks, nothing else."""
