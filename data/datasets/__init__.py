"""Data sets that a config names by target: `epochal.data.datasets:digits`."""

from epochal.data.datasets.built_in import digits, idx_images

__all__ = ["digits", "idx_images"]
