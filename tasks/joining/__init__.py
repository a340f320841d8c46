"""Trainer processes that an engine starts, here or on other machines, and that join the run."""
