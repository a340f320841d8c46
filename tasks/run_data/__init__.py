"""A run's data sets opened; probe batches; images."""
