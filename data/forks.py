"""Processes that the user's code forks, and that come back from it into ours: they end here."""

from __future__ import annotations

import os

STDERR = 2


def end_if_forked(process: int) -> None:
    """Ends this process if it is not that one: else two would go on with the same work."""
    if os.getpid() == process:
        return
    text = (
        f"process {os.getpid()} was forked by code of yours, and has come back from it: it is "
        "ended here. What os.fork() starts must end by os._exit()\n"
    )
    os.write(STDERR, text.encode())  # what `sys.stderr` is may be the user's doing
    os._exit(1)
