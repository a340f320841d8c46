"""Histories from a seed: one run over several lives, what goes wrong, what must be equal."""
