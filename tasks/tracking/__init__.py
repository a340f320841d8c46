"""MLflow: connection, one run, points exactly once, models, background thread."""
