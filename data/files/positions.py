"""Files that are open when a worker is forked: it reads them at positions of its own.

A fork shares a file's position with its parent and with all of its siblings. A data set that opens
a file where it is made, and moves in it to read an item, would give the bytes of another item.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
from pathlib import Path

STANDARD = 2  # the last of the descriptors of standard input, output and error


def own_file_positions() -> None:
    """Opens anew, in its place, each file that this process has open for reading alone.

    A file that is written, a pipe, a socket and a file that may be opened no more stay shared, as
    does everything off Linux.
    """
    if sys.platform != "linux":
        return
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > STANDARD:
            _open_anew(descriptor)


def _open_anew(descriptor: int) -> None:
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return  # that of the listing itself, closed since
    if not is_file or flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_PATH:
        return
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    kept = flags & (os.O_NOATIME | os.O_DIRECT)
    try:
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | kept)
    except OSError:  # one that was handed down, say: whoever may not open it moves in it as before
        return
    try:
        os.lseek(opened, position, os.SEEK_SET)
        os.dup2(opened, descriptor, inheritable=os.get_inheritable(descriptor))
    finally:
        os.close(opened)
