"""Stages: config, keys, run-or-reuse, the Prefect tasks, the MLflow ledger."""
