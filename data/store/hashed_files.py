"""Files that are hashed while they are written, so that their bytes are not read a second time.

Hashing afterwards would take longer than the writing. `write_hashed` is for files that are read
again soon: one thread writes, a second one hashes, and a third one syncs every few MiB, so that the
sync at the end finds little left. `write_checksummed` is for files that are written while a model
trains, and takes as little processor time as it can. Knows nothing of stores or of what the bytes
mean.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from epochal.data.hashing import BytesDigest, Checksum, file_sha256

BLOCK_BYTES = 8 << 20
SMALL_BYTES = 1 << 16  # smaller pieces are gathered: a system call for each would cost more
SYNC_BYTES = 32 << 20  # between two early syncs, benchmarks/checkpoint.py
MAX_WAITING_BLOCKS = 32  # written and not yet hashed: bounds what is held in memory
_O_DIRECT = getattr(os, "O_DIRECT", 0)  # not every system has it


@dataclass(frozen=True)
class WrittenFile:
    """A local file whose bytes are known. sha256: hexadecimal; size: in bytes."""

    path: Path
    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> WrittenFile:
        """A file that is there already: reads it."""
        return cls(path, file_sha256(path), path.stat().st_size)


@dataclass(frozen=True)
class ChecksummedFile:
    """A local file of which the bytes' `Checksum` is known: 32 hexadecimal digits."""

    path: Path
    checksum: str
    size: int


def write_hashed(path: Path, pieces: Iterable[bytes | memoryview]) -> WrittenFile:
    """Writes a new file of these bytes. It is not synced: a caller may have to.

    Pieces must stay as they are until it returns. Raises OSError, naming the file.
    """
    digest = BytesDigest()
    with _new_file(path) as descriptor:
        size = _write_all(descriptor, pieces, digest)
    return WrittenFile(path, digest.hexdigest(), size)


def write_checksummed(
    path: Path, pieces: Iterable[bytes | memoryview], *, cached: bool = False
) -> ChecksummedFile:
    """As `write_hashed`, with a `Checksum`, and past the page cache where the system allows it.

    cached: always through the page cache, for a file that is read again soon. Figures:
    docs/performance.md.
    """
    checksum = Checksum()
    with _new_file(path) as descriptor:
        if not cached and _go_past_the_cache(descriptor, wanted=True):
            size = _write_past_the_cache(descriptor, pieces, checksum)
        else:
            size = _write_all(descriptor, pieces, checksum)
    return ChecksummedFile(path, checksum.hexdigest(), size)


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """The descriptor of a file that was not there. An OSError of the block names the file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error


def _write_all(descriptor: int, pieces: Iterable[bytes | memoryview], digest: BytesDigest) -> int:
    """Writes all bytes and adds them to `digest`; returns their number."""
    size = 0
    with _Threads(digest, descriptor) as threads:
        for block in _blocks(pieces):
            threads.hash(block)
            _write(descriptor, block)
            threads.sync_early(block.nbytes)
            size += block.nbytes
    return size


def _write_past_the_cache(
    descriptor: int, pieces: Iterable[bytes | memoryview], checksum: Checksum
) -> int:
    """As `_write_all`, through one buffer at the start of a page, as such writes need it.

    The system then makes no pages of its own and copies nothing into them.
    """
    import numpy as np

    pages = mmap.mmap(-1, BLOCK_BYTES)
    view, buffer = memoryview(pages), np.frombuffer(pages, np.uint8)
    filled = size = 0
    for piece in pieces:
        rest = np.frombuffer(piece, np.uint8) if len(piece) else buffer[:0]
        while rest.size:
            count = min(rest.size, BLOCK_BYTES - filled)
            np.copyto(buffer[filled : filled + count], rest[:count])  # other threads run meanwhile
            rest, filled = rest[count:], filled + count
            if filled == BLOCK_BYTES:
                checksum.update(view)
                _write(descriptor, view)
                size, filled = size + filled, 0
    _go_past_the_cache(descriptor, wanted=False)  # the end is no whole page
    checksum.update(view[:filled])
    _write(descriptor, view[:filled])
    return size + filled


def _go_past_the_cache(descriptor: int, *, wanted: bool) -> bool:
    """Sets whether writes go past the page cache; False where the file system cannot."""
    if not _O_DIRECT:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        changed = flags | _O_DIRECT if wanted else flags & ~_O_DIRECT
        fcntl.fcntl(descriptor, fcntl.F_SETFL, changed)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _is_past_the_cache(descriptor: int) -> bool:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & _O_DIRECT != 0


class _Threads:
    """The hashing and the syncing thread of one file; a block without error waits for both."""

    def __init__(self, digest: BytesDigest, descriptor: int) -> None:
        self._digest = digest
        self._descriptor = descriptor
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="epochal-hash")
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="epochal-sync")
        self._hashes: deque[Future[None]] = deque()
        self._sync: Future[None] | None = None
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._hashing.shutdown(cancel_futures=kind is not None)
        self._syncing.shutdown()
        if kind is None:
            for future in self._hashes:
                future.result()
            if self._sync is not None:
                self._sync.result()

    def hash(self, block: memoryview) -> None:
        """Hashes the block, after those before it."""
        self._hashes.append(self._hashing.submit(self._digest.update, block))
        if len(self._hashes) > MAX_WAITING_BLOCKS:
            self._hashes.popleft().result()

    def sync_early(self, num_bytes: int) -> None:
        """Counts what was written; has it sent to the disk if it is much. Raises OSError."""
        self._unsynced += num_bytes
        if self._unsynced < SYNC_BYTES or not (self._sync is None or self._sync.done()):
            return
        if self._sync is not None:
            self._sync.result()
        self._unsynced = 0
        # Not `fdatasync`, which not every system has.
        self._sync = self._syncing.submit(os.fsync, self._descriptor)


def _blocks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """The same bytes in blocks of some MiB."""
    gathered = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        if view.nbytes < SMALL_BYTES:
            gathered += view
            if len(gathered) < BLOCK_BYTES:
                continue
        if gathered:
            yield memoryview(gathered)
            gathered = bytearray()
        if view.nbytes >= SMALL_BYTES:
            for start in range(0, view.nbytes, BLOCK_BYTES):
                yield view[start : start + BLOCK_BYTES]
    if gathered:
        yield memoryview(gathered)


def _write(descriptor: int, block: memoryview) -> None:
    while block.nbytes:
        try:
            count = os.write(descriptor, block)
        except OSError as error:
            # A file system may refuse to write past the cache although it let us switch to it,
            # and also refuses a block that begins elsewhere than at the start of a page, as
            # the rest does after a write that took only a part: go on through the cache.
            may_help = error.errno == errno.EINVAL and _is_past_the_cache(descriptor)
            if not may_help or not _go_past_the_cache(descriptor, wanted=False):
                raise
            continue
        if not count:
            raise OSError(errno.EIO, "nothing was written")
        block = block[count:]
