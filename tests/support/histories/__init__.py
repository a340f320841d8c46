"""Histories from a seed: one run over several lives, what goes wrong in each, and what must be equal."""
