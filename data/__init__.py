"""Samples and bytes: store, tables, policies, order, loader, built-in data sets."""
