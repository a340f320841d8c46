"""Tar shards: their headers, an index of their samples, and shards written from what iterates."""
