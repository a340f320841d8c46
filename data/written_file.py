"""A file that is written and hashed in one pass: its digest is known when its last byte is out.

One thread hashes what another one writes, and a third asks the disk to begin early, so that the
sync at the end finds little left: a digest afterwards would read all of it again, and take longer
than the writing. Knows nothing of stores or of what the bytes mean.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from epochal.data.hashing import BytesDigest, Checksum, file_checksum, file_sha256

BLOCK_BYTES = 8 << 20
SMALL_BYTES = 1 << 16  # smaller pieces are gathered: a system call for each would cost more
SYNC_BYTES = 32 << 20  # between two early syncs, benchmarks/checkpoint.py
MAX_WAITING_BLOCKS = 32  # that are written and not yet hashed: bounds what is held in memory


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

    @classmethod
    def of(cls, path: Path) -> ChecksummedFile:
        """A file that is there already: reads it."""
        return cls(path, file_checksum(path), path.stat().st_size)


def write_hashed(path: Path, pieces: Iterable[bytes | memoryview]) -> WrittenFile:
    """Writes a new file of these bytes. Who needs it durable syncs it still.

    Pieces must stay as they are until it returns. Raises OSError, naming the file.
    """
    digest = BytesDigest()
    size = _write_all(path, pieces, digest)
    return WrittenFile(path, digest.hexdigest(), size)


def write_checksummed(path: Path, pieces: Iterable[bytes | memoryview]) -> ChecksummedFile:
    """As `write_hashed`, in a fraction of its processor time."""
    checksum = Checksum()
    size = _write_all(path, pieces, checksum)
    return ChecksummedFile(path, checksum.hexdigest(), size)


def _write_all(
    path: Path, pieces: Iterable[bytes | memoryview], digest: BytesDigest | Checksum
) -> int:
    """Writes the file, `digest` told of all bytes; gives their number."""
    size = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with _Threads(digest, descriptor) as threads:
                for block in _blocks(pieces):
                    threads.hash(block)
                    _write(descriptor, block)
                    threads.sync_early(block.nbytes)
                    size += block.nbytes
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    return size


class _Threads:
    """The two helpers of one file; all that they were given is done when the block ends well."""

    def __init__(self, digest: BytesDigest | Checksum, descriptor: int) -> None:
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
        block = block[os.write(descriptor, block) :]
