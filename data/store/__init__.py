"""Named objects that appear whole and never change, on any fsspec storage."""

from epochal.data.store.store import Store, open_store

__all__ = ["Store", "open_store"]
