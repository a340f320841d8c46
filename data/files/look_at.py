"""Sizes and times of files, asked for by a process of its own: `python look_at.py`.

One interpreter gets some 400,000 answers a second however many threads it has, for each answer is
made an object under its lock. So several processes ask, and each imports nothing of ours.

On standard input: of one folder after another 8 bytes, the number of those that follow, then its
path and the names in it with one NUL between. On standard output: the answer to each at once, all
sizes in bytes, then all times of the last change in ns, int64 each.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterable, Sequence

LENGTH_BYTES = 8


def request(path: bytes, names: Sequence[bytes]) -> bytes:
    """What the process reads for one folder."""
    body = b"\0".join([path, *names])
    return len(body).to_bytes(LENGTH_BYTES, "little") + body


def look_at(path: bytes, names: Iterable[bytes]) -> tuple[array[int], array[int]]:
    """Sizes in bytes and times of change in ns of a folder's files.

    Both are -1 of a file that cannot be looked at, and of all files of such a folder.
    """
    sizes, times = array("q"), array("q")
    stat = os.stat
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:
        count = len(list(names))
        return array("q", [-1] * count), array("q", [-1] * count)
    try:
        for name in names:
            try:
                status = stat(name, dir_fd=folder)
            except OSError:
                sizes.append(-1)
                times.append(-1)
            else:
                sizes.append(status.st_size)
                times.append(status.st_mtime_ns)
    finally:
        os.close(folder)
    return sizes, times


def _main() -> None:
    while length := sys.stdin.buffer.read(LENGTH_BYTES):
        path, *names = sys.stdin.buffer.read(int.from_bytes(length, "little")).split(b"\0")
        for values in look_at(path, names):
            sys.stdout.buffer.write(values.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main()
