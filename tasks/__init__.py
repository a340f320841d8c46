"""Stages: config, keys, what is computed or reused, Prefect tasks, delivery to MLflow."""
