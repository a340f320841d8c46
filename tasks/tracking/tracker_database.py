"""MLflow's SQLite file, made whole or not at all.

MLflow makes its tables one migration after the other, for seconds, and not in one transaction: a
process that is killed meanwhile leaves a file that MLflow refuses ever after ("table … already
exists"). So they are made in a file beside it, which then takes its name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from epochal.data.errors import ServerUnavailable

_ABOUT = 2000  # characters of what a failed attempt said


def make_database(path: Path) -> None:
    """Makes the file with MLflow's tables if there is none, which takes seconds.

    In a process of its own, since MLflow keeps connections to what it has opened. Two that make it
    at once both work, and the first one's file stands. Raises ServerUnavailable.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.new*"):
        with suppress(ValueError, FileNotFoundError):
            if not _is_alive(int(leftover.name.split(".")[-2])):
                leftover.unlink()
    private = path.with_name(f".{path.name}.{os.getpid()}.new")
    command = [sys.executable, "-P", "-m", "mlflow", "db", "upgrade", f"sqlite:///{private}"]
    made = subprocess.run(  # noqa: S603 - this Python, and a path
        command, capture_output=True, text=True, check=False
    )
    try:
        if made.returncode != 0:
            raise ServerUnavailable(
                f"{path}: MLflow could not make its tables: {made.stderr.strip()[-_ABOUT:]}"
            )
        with suppress(FileExistsError):  # another process was faster
            os.link(private, path)
    finally:
        private.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if sys.platform == "linux" else True
