"""Where the time goes: seconds by cause of each stage, beside its record, and what they come to."""
