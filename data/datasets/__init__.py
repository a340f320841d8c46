"""Data sets that a config names by target: `epochal.data.datasets:digits`."""

import sys
from types import ModuleType
from typing import Any

from epochal.data.datasets.built_in import digits, idx_images
from epochal.data.lazy import lazy_names

__all__ = [
    "arrays",
    "digits",
    "hugging_face",
    "idx_images",
    "image_folder",
    "mixture",
    "packed",
    "parquet_images",
    "table",
    "tar_shards",
    "text",
]

_LAZY = (
    "arrays",
    "hugging_face",
    "image_folder",
    "mixture",
    "packed",
    "parquet_images",
    "table",
    "tar_shards",
    "text",
)
"""Functions whose modules, of the same names, import torch or pyarrow."""
__getattr__, __dir__ = lazy_names(__name__, {f"{__name__}.{name}": (name,) for name in _LAZY})


class _Face(ModuleType):
    """Python makes a module that is imported an attribute of its package: here its function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _LAZY and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
