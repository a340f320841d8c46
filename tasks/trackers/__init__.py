"""Trackers beside MLflow: the protocol, TensorBoard and trackio, and how their points get there."""
