"""Where what the runs of a sweep print is kept on this machine."""

from __future__ import annotations

from pathlib import Path


def logs_of(sweep: str) -> Path:
    """The folder of a sweep: a file for each run."""
    return Path.home() / ".epochal" / "sweeps" / sweep
