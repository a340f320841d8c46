"""Settings of data sets, batches, policies; pure pydantic, imports nothing heavy."""
