"""Metrics and per-sample observations."""
