"""A bounded cache on the local disk of bytes that came from far away, shared by all processes.

What is in it may go at any time. A file appears whole or not at all, and carries a checksum: one
that is damaged is as good as absent. A disk that is full ends the caching, not the reading.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from epochal.data.errors import ConfigError
from epochal.data.hashing import Checksum

FOLDER_VARIABLE = "EPOCHAL_CACHE"
BYTES_VARIABLE = "EPOCHAL_CACHE_BYTES"
DEFAULT_BYTES = 10 << 30
FULL, EMPTIED = 0.9, 0.75  # of the limit: from where on, and down to where, old files are removed
NUM_WRITERS = 32  # processes that may fill one cache at the same time
MAX_SHARE = 8  # an object of more than an eighth of the limit is not kept
UNUSED_S = 90 * 86_400
_CHECKSUM_BYTES = 32
_OBJECTS, _TEMPORARY, _LOCK = "objects", "tmp", "lock"

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """What `EPOCHAL_CACHE` says, else `~/.cache/epochal`."""
    named = os.environ.get(FOLDER_VARIABLE, "")
    if named:
        return Path(named).absolute()
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache").absolute() / "epochal"


def cache_bytes() -> int:
    """What `EPOCHAL_CACHE_BYTES` says, else 10 GiB; 0: nothing is kept. Raises ConfigError."""
    text = os.environ.get(BYTES_VARIABLE, "")
    try:
        limit = int(text) if text else DEFAULT_BYTES
    except ValueError:
        limit = -1
    if limit < 0:
        raise ConfigError(
            f"{BYTES_VARIABLE}: found {text!r}; expected a whole number of bytes, 0 for no cache"
        )
    return limit


class LocalCache:
    """Bytes by key: 64 hexadecimal digits that name the content."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._pid = os.getpid()
        self._left = 0  # bytes that may be written before all are counted again
        self._is_off = limit_bytes == 0

    def get(self, key: str) -> bytes | None:
        """The bytes, or None if they are not there whole."""
        path = self._path(key)
        data = None if self._is_off else read_whole(path)
        if data is not None:
            with suppress(OSError):
                os.utime(path)  # what was read lately is removed last
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keeps them if there is room, or older ones can make it."""
        size = len(data) + _CHECKSUM_BYTES
        if self._is_off or size * MAX_SHARE > self._limit:
            return
        if self._pid != os.getpid():
            self._pid, self._left = os.getpid(), 0
        try:
            if size > self._left:
                self._make_room(size)
            self._left -= size
            write_whole(self._path(key), data, scratch=self._folder / _TEMPORARY)
        except OSError as error:
            self._is_off = True
            logger.warning(
                "nothing more is kept in the local cache %s: %s; the data is read from where it "
                "lies: free some space, or set %s and %s",
                self._folder,
                error.strerror or error,
                FOLDER_VARIABLE,
                BYTES_VARIABLE,
            )

    def _path(self, key: str) -> Path:
        return self._folder / _OBJECTS / key[:2] / key

    def _make_room(self, size: int) -> None:
        with _locked(self._folder / _LOCK):
            files = sorted(self._files())
            total = sum(num_bytes for _, num_bytes, _ in files)
            if total + size > FULL * self._limit:
                for _, num_bytes, path in files:
                    if total + size <= EMPTIED * self._limit:
                        break
                    with suppress(FileNotFoundError):
                        os.unlink(path)  # noqa: PTH108 - texts: thousands of them
                    total -= num_bytes
            self._left = max(size, (self._limit - total) // NUM_WRITERS)

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """(time of last use in ns, bytes, path) of all that is kept or half written."""
        for start in (_OBJECTS, _TEMPORARY):
            for inside, _, names in os.walk(self._folder / start):
                for name in names:
                    path = os.path.join(inside, name)  # noqa: PTH118 - texts: thousands of them
                    with suppress(FileNotFoundError):
                        status = os.stat(path)  # noqa: PTH116
                        yield status.st_mtime_ns, status.st_size, path


def recall(kind: str, key: str) -> bytes | None:
    """What `remember` was given for that key; None if it is not there whole."""
    path = _remembered(kind, key)
    data = read_whole(path)
    if data is not None:
        with suppress(OSError):
            os.utime(path)
    return data


def remember(kind: str, key: str, data: bytes | memoryview) -> None:
    """Keeps what a later start may use; what none has used for 90 days goes.

    kind: `listings`, `labels`. These are few: they are not counted against the limit.
    """
    path = _remembered(kind, key)
    try:
        write_whole(path, data, scratch=cache_folder() / _TEMPORARY)
        newest_s = path.stat().st_mtime
        for other in path.parent.iterdir():
            if other.stat().st_mtime < newest_s - UNUSED_S:
                other.unlink()
    except OSError as error:
        logger.info("%s cannot be remembered in %s: %s", kind, path, error)


def _remembered(kind: str, key: str) -> Path:
    return cache_folder() / kind / f"{key}.arrow"


def read_whole(path: Path) -> bytes | None:
    """What `write_whole` has written there; None if that is not there, or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    return body if checksum == _checksum(body) else None


def write_whole(path: Path, data: bytes | memoryview, *, scratch: Path) -> None:
    """Puts the bytes and their checksum at `path`, in place of what is there. Raises OSError.

    scratch: a folder on the same disk for the file while it is written.
    """
    for folder in (scratch, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = scratch / f"{os.getpid()}-{os.urandom(8).hex()}"
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.write(_checksum(data))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _checksum(data: bytes | memoryview) -> bytes:
    checksum = Checksum()
    checksum.update(data)
    return checksum.hexdigest().encode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)  # which ends the lock
