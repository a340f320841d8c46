"""How a run is opened, its stages computed or reused, and its tracker put together."""
