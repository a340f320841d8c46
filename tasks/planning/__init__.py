"""The list of stages and their keys, from the config and the digests of data and sources."""
