"""The list of stages and their keys, from config and facts alone."""
