"""Named objects that appear whole and never change, on any fsspec storage."""

from epochal.data.store.open import open_store
from epochal.data.store.store import Store

__all__ = ["Store", "open_store"]
