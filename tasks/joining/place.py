"""Whether two processes are on one machine, and see the same memory and files there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def place_of(descriptor: int) -> dict[str, Any]:
    """Where this process, and a file that it has open, can be found: for `opened`."""
    found = os.fstat(descriptor)
    return {
        "boot": _BOOT.read_text().strip(),
        "mounts": _mounts("self"),
        "pid": os.getpid(),
        "descriptor": descriptor,
        "file": [found.st_dev, found.st_ino],
    }


def opened(place: Mapping[str, Any]) -> int | None:
    """A descriptor of the other process's file; None where that one is on another machine."""
    pid = int(place["pid"])
    with suppress(OSError):
        if _BOOT.read_text().strip() != place["boot"]:
            return None
        if {_mounts("self"), _mounts(pid)} != {place["mounts"]}:
            return None
        descriptor = os.open(f"/proc/{pid}/fd/{int(place['descriptor'])}", os.O_RDWR)
        found = os.fstat(descriptor)
        if [found.st_dev, found.st_ino] == place["file"]:
            return descriptor
        os.close(descriptor)
    return None


def _mounts(pid: int | str) -> str:
    """Which file systems a process sees."""
    return str(Path(f"/proc/{pid}/ns/mnt").readlink())
