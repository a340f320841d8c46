"""Histories from a seed: a run over several lives, what goes wrong in each, what must be equal."""
