"""Settings of the numbers; pure pydantic."""
