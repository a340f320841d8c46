"""The HTML page of runs: its sections, their charts, and how they are written."""
