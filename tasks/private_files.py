"""Files and folders of a person's own, which nobody else reads, whatever the umask."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_OF_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> Path:
    """`path`, made with mode 0700 if it is missing; closed to others if it was open. OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(path)
    return path


def private_file(path: Path) -> Path:
    """`path`, made empty with mode 0600 if it is missing; closed to others if it was open."""
    path.touch(mode=0o600)
    close_to_others(path)
    return path


def close_to_others(path: Path) -> None:
    """Takes all rights of others from a file or folder of ours; nothing where it is missing."""
    with suppress(FileNotFoundError):
        status = path.stat()
        if status.st_uid == os.getuid() and status.st_mode & _OF_OTHERS:
            path.chmod(stat.S_IMODE(status.st_mode) & ~_OF_OTHERS)
