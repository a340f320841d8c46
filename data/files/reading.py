"""Bytes of the files below a root, wherever it is, with read-ahead and the local cache.

A reader holds no open file. Which process it was made in does not matter: a thread, connections
and what was read ahead belong to the process that reads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from epochal.data.files.local_cache import LocalCache, cache_bytes, cache_folder
from epochal.data.files.storage import Piece, Storage, local_path, read_local
from epochal.data.hashing import digest

AHEAD_BYTES = 128 << 20  # that one process holds or is being sent, before they are asked for
NUM_AHEAD = 4  # pieces that are fetched together
SLACK = 8  # pieces that threads may ask for in another order than was told

__all__ = ["Piece", "Reader"]


class Reader:
    """Reads files below one root, by any number of processes and threads."""

    def __init__(self, root: str, *, ahead_bytes: int = AHEAD_BYTES) -> None:
        local = local_path(root)
        self._local = None if local is None else str(local)
        self._storage = Storage(root) if local is None else None
        self._root = root
        self._ahead_bytes = ahead_bytes
        self._mine: _OfProcess | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self._root, "ahead_bytes": self._ahead_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a new one, as in a process of its own

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return self._local is not None

    def address(self, name: str) -> str:
        """Where the file is, for people."""
        return f"{self._root.rstrip('/')}/{name}" if name else self._root

    def read(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The bytes of each piece; of an address those that are missing here at the same time.

        Raises DataError for a file that is not there, Unavailable for a storage that does not
        answer.
        """
        if self._local is not None:
            return [read_local(self._path(piece.name), piece) for piece in pieces]
        mine = self._of_process()
        found = [mine.ahead.take(piece) for piece in pieces]
        missing = [place for place, data in enumerate(found) if data is None]
        for place, data in zip(missing, mine.fetch([pieces[at] for at in missing]), strict=True):
            found[place] = data
        return [data for data in found if data is not None]

    def will_read(self, pieces: Iterable[Piece]) -> None:
        """These are read next, in this order, each with an `end`: replaces what was told before."""
        if self._local is None:
            self._of_process().ahead.want(pieces)
        elif hasattr(os, "posix_fadvise"):
            self._advise(pieces)

    def _advise(self, pieces: Iterable[Piece]) -> None:
        left = self._ahead_bytes
        for piece in pieces:
            size = (piece.end or 0) - piece.start
            left -= size
            if left < 0:
                return
            with suppress(OSError):  # reading will tell
                file = os.open(self._path(piece.name), os.O_RDONLY)
                try:
                    os.posix_fadvise(file, piece.start, size, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)

    def _path(self, name: str) -> str:
        return f"{self._local}/{name}" if name else f"{self._local}"

    def _of_process(self) -> _OfProcess:
        # Two threads may make two at the same time: the one that is left is as good.
        mine = self._mine
        if mine is None or mine.pid != os.getpid():
            assert self._storage is not None
            mine = self._mine = _OfProcess(self._storage, self._ahead_bytes)
        return mine


class _OfProcess:
    """What belongs to one process: the cache's count, and what is read ahead."""

    def __init__(self, storage: Storage, ahead_bytes: int) -> None:
        self.pid = os.getpid()
        self._storage = storage
        # What lies in memory gains nothing by the disk.
        limit = 0 if storage.is_memory else cache_bytes()
        self._cache = LocalCache(cache_folder(), limit_bytes=limit)
        self.ahead = ReadAhead(self.fetch, limit_bytes=ahead_bytes)

    def fetch(self, pieces: Sequence[Piece]) -> list[bytes]:
        keys = [self._key(piece) for piece in pieces]
        found = [None if key is None else self._cache.get(key) for key in keys]
        missing = [place for place, data in enumerate(found) if data is None]
        fetched = self._storage.fetch([pieces[at] for at in missing])
        for place, data in zip(missing, fetched, strict=True):
            found[place] = data
            key = keys[place]
            if key is not None:
                self._cache.put(key, data)
        return [data for data in found if data is not None]

    def _key(self, piece: Piece) -> str | None:
        """None where nothing tells one content of the file from another."""
        if not piece.stamp:
            return None
        address = self._storage.address(piece.name)
        return digest("cached-bytes", [address, piece.start, piece.end, piece.stamp])


@dataclass
class _Ahead:
    number: int
    started: bool = False
    done: bool = False
    data: bytes | None = None


class ReadAhead:
    """Fetches pieces in a thread before they are asked for, a bounded number of bytes at a time.

    The thread ends when nothing is left to fetch, or nothing more fits; it draws no random number.
    """

    def __init__(self, fetch: Callable[[list[Piece]], list[bytes]], *, limit_bytes: int) -> None:
        self._fetch = fetch
        self._limit = limit_bytes
        self._changed = threading.Condition()
        self._wanted: dict[Piece, _Ahead] = {}
        self._thread: threading.Thread | None = None

    def want(self, pieces: Iterable[Piece]) -> None:
        """These next, in this order; what was wanted before and is not among them is dropped."""
        with self._changed:
            before = self._wanted
            self._wanted = {}
            for number, piece in enumerate(pieces):
                entry = before.get(piece, _Ahead(number))
                entry.number = number
                self._wanted[piece] = entry
            self._go_on()

    def take(self, piece: Piece) -> bytes | None:
        """The piece, waited for if it is on its way; None if it is not, or could not be read."""
        with self._changed:
            entry = self._wanted.get(piece)
            if entry is None:
                return None
            while entry.started and not entry.done:
                self._changed.wait()
            self._wanted.pop(piece, None)
            for passed in [
                other for other, its in self._wanted.items() if its.number < entry.number - SLACK
            ]:
                del self._wanted[passed]
            self._go_on()
            return entry.data

    def held_bytes(self) -> int:
        """Bytes that are here or on their way."""
        with self._changed:
            return self._held()

    def _held(self) -> int:
        return sum(_size(piece) for piece, entry in self._wanted.items() if entry.started)

    def _next(self) -> list[Piece]:
        left = self._limit - self._held()
        chosen: list[Piece] = []
        for piece, entry in self._wanted.items():
            if entry.started:
                continue
            left -= _size(piece)
            if left < 0 or len(chosen) == NUM_AHEAD:
                break
            chosen.append(piece)
        return chosen

    def _go_on(self) -> None:
        if self._thread is None and self._next():
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                pieces = self._next()
                if not pieces:
                    self._thread = None
                    return
                entries = [self._wanted[piece] for piece in pieces]
                for entry in entries:
                    entry.started = True
            data: Sequence[bytes | None] = [None] * len(pieces)
            # Whoever asks for the piece reads it again, and gets the error.
            with suppress(Exception):
                data = self._fetch(pieces)
            with self._changed:
                for entry, its in zip(entries, data, strict=True):
                    entry.data, entry.done = its, True
                self._changed.notify_all()


def _size(piece: Piece) -> int:
    return 0 if piece.end is None else piece.end - piece.start
