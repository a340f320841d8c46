"""Machines, as far as one has several: folders, a host's name, a temporary folder, a clock."""

import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OWN_MOUNTS = "EPOCHAL_PROOF_MOUNTS"
"""Set by who has begun in a mount namespace of its own: what is mounted there ends with it."""


@cache
def may_mount() -> bool:
    """Whether folders may be mounted without anybody else seeing it."""
    return OWN_MOUNTS in os.environ


@cache
def may_rename() -> bool:
    """Whether a process may have a host's name of its own."""
    tried = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@cache
def may_set_clock() -> bool:
    """Whether there is a compiler for the library that changes the time of day."""
    return shutil.which("cc") is not None


def mount(*arguments: str) -> bool:
    """Whether it went; a folder with files that are being written cannot become read-only."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


@dataclass
class Machine:
    """name: its host's, where it may have one of its own. tmp_mb: the size of its `TMPDIR`."""

    name: str
    folder: Path
    tmp_mb: int
    own_clock: bool = False

    def __post_init__(self) -> None:
        self.home, self.tmp = self.folder / "home", self.folder / "tmp"
        for one in (self.home, self.tmp):
            one.mkdir(parents=True)
        if may_mount():
            assert mount("-t", "tmpfs", "-o", f"size={self.tmp_mb}m", "tmpfs", str(self.tmp))
        self.clock = self.folder / "clock"
        self.clock.write_bytes(struct.pack("q", 0))

    @property
    def prefix(self) -> list[str]:
        """What a command begins with so that it is on this machine."""
        if not may_rename():
            return []
        return ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]

    @property
    def variables(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "TMPDIR": str(self.tmp)}
        if self.own_clock:
            own |= {"LD_PRELOAD": str(self._library()), "SHIFT_FILE": str(self.clock)}
        return own

    def set_clock(self, seconds: int) -> None:
        """By so many, from now on, for all processes there."""
        with self.clock.open("r+b") as file:
            file.write(struct.pack("q", seconds))

    def fill(self) -> None:
        """Its `TMPDIR` is full."""
        end, step = 0, shutil.disk_usage(self.tmp).free
        with (self.tmp / "full").open("wb") as file:
            while step:  # the command takes some of it meanwhile
                try:
                    os.posix_fallocate(file.fileno(), end, step)
                except OSError:
                    step //= 2
                else:
                    end += step

    def empty(self) -> None:
        (self.tmp / "full").unlink(missing_ok=True)

    def clear(self) -> None:
        if may_mount():
            unmount(self.tmp)

    def _library(self) -> Path:
        made = self.folder / "clock.so"
        if not made.exists():
            source = Path(__file__).with_name("clock.c")
            subprocess.run(
                ["cc", "-O2", "-shared", "-fPIC", "-o", str(made), str(source)], check=True
            )
        return made
