"""Sweeps: many runs of one config, whose shared epochs are trained once."""
