"""Where files lie: a local folder, or an address that fsspec opens; safe after a fork.

fsspec's file systems hold connections and a thread. A process that was forked off makes its own,
and none is taken from fsspec's cache of instances, which a fork shares.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from epochal.data.errors import DataError, EpochalError, Unavailable
from epochal.data.store.failures import advice, cause_of, storage_errors
from epochal.data.store.retry import RetryPolicy, tried
from epochal.data.store.s3 import s3_options

NUM_REQUESTS = 32  # of one call at the same time
_LOCAL = ("file://", "local://")


def local_path(address: str) -> Path | None:
    """The path that it names on this machine; None for any other address."""
    for scheme in _LOCAL:
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme)).absolute()
    return None if "://" in address else Path(address).absolute()


@dataclass(frozen=True)
class Piece:
    """Bytes of one file. name: below the root. end: None for all that is there from `start` on.

    stamp: of the file, as its listing has it; 0 where that has none.
    """

    name: str
    start: int = 0
    end: int | None = None
    stamp: int = 0

    @property
    def first(self) -> int | None:
        """As fsspec is asked: a range of an empty object is refused, the whole of it is not."""
        return None if self.end is None and not self.start else self.start


class Storage:
    """The files below one address that fsspec opens, read by any process and thread."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._pid = -1
        self._files: Any = None
        self._path = ""

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]  # a new one, as in a process of its own

    def _opened(self) -> Any:
        # A lock that another thread held while the process forked would be held for ever here.
        if self._pid != os.getpid():
            self._lock = threading.Lock()
        with self._lock:
            if self._pid != os.getpid():
                self._files, self._path = _open(self.root)
                self._pid = os.getpid()
        return self._files

    @property
    def at_once(self) -> bool:
        """Whether several requests at the same time are faster than one after another."""
        return bool(self._opened().async_impl)

    @property
    def is_memory(self) -> bool:
        """Whether the files lie in this process's own memory."""
        return "memory" in _protocols(self._opened())

    def address(self, name: str) -> str:
        """Where the file is, for people."""
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def _place(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def entries(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """What lies directly in the folder: relative name and what fsspec tells of it, sorted."""
        files = self._opened()
        found = tried(lambda: files.ls(self._place(folder), detail=True))
        return self._relative((info["name"], info) for info in found)

    def below(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """All files below the folder, likewise."""
        files = self._opened()
        found = tried(lambda: files.find(self._place(folder), detail=True))
        return self._relative(found.items())

    def matching(self, pattern: str) -> list[tuple[str, dict[str, Any]]]:
        """All files whose names below the root match it, likewise."""
        files = self._opened()
        found = tried(lambda: files.glob(self._place(pattern), detail=True))
        return self._relative(item for item in found.items() if item[1]["type"] == "file")

    def _relative(self, found: Any) -> list[tuple[str, dict[str, Any]]]:
        start = f"{self._path}/"
        named = ((name.rstrip("/").removeprefix(start), info) for name, info in found)
        return sorted(
            ((name, info) for name, info in named if name and f"{name}/" != start),
            key=lambda entry: entry[0],
        )

    def info(self, name: str) -> dict[str, Any]:
        """What fsspec tells of one file. Raises what the storage raises."""
        files = self._opened()
        told: dict[str, Any] = tried(lambda: files.info(self._place(name)))
        return told

    def fetch(self, pieces: Sequence[Piece]) -> list[bytes]:
        """The bytes of each piece, asked for at the same time where the storage can.

        A request that fails is made again, as long as `EPOCHAL_STORE_PATIENCE_SECONDS` says.
        Raises DataError for what is not there, Unavailable where the storage does not answer.
        """
        if not pieces:
            return []
        files = self._opened()
        if len(pieces) == 1:
            return [self._fetch_one(pieces[0])]
        limits = {"batch_size": NUM_REQUESTS} if files.async_impl else {}
        try:
            answers = files.cat_ranges(
                [self._place(piece.name) for piece in pieces],
                [piece.first for piece in pieces],
                [piece.end for piece in pieces],
                on_error="return",
                **limits,
            )
        except storage_errors():
            answers = [None] * len(pieces)
        return [
            bytes(answer)
            if isinstance(answer, bytes | bytearray | memoryview)
            else self._fetch_one(piece)
            for piece, answer in zip(pieces, answers, strict=True)
        ]

    def _fetch_one(self, piece: Piece) -> bytes:
        files = self._opened()
        patience = RetryPolicy.of_environment(hurried=lambda: False, notice=lambda _: None)
        try:
            return bytes(
                tried(
                    lambda: files.cat_file(
                        self._place(piece.name), start=piece.first, end=piece.end
                    ),
                    left_s=lambda: patience.left_s,
                )
            )
        except Exception as error:
            raise refused(error, self.address(piece.name), "a file that can be read") from error


def read_local(path: str, piece: Piece) -> bytes:
    """The piece of a local file.

    Raises DataError where it is not there, or has another time than the piece's stamp, if that has
    one; else Unavailable.
    """
    try:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - a Path costs 2 µs
            if piece.stamp and os.fstat(stream.fileno()).st_mtime_ns != piece.stamp:
                raise DataError(
                    f"{path} has changed since it was opened; expected files that stay as they are "
                    "while they are used; run the same command again"
                )
            if piece.start:
                stream.seek(piece.start)
            if piece.end is None:
                return stream.read()
            return _read_all(stream, piece.end - piece.start)
    except OSError as error:
        raise refused(error, path, "a file that can be read") from error


def _read_all(stream: Any, num_bytes: int) -> bytes:
    blocks = []
    while num_bytes and (block := stream.read(num_bytes)):
        blocks.append(block)
        num_bytes -= len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def refused(error: Exception, address: str, expected: str) -> EpochalError:
    """What to raise for an error of a storage: whose mistake it is, and what to do."""
    if isinstance(error, EpochalError):
        return error
    missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    if missing or isinstance(error, ImportError | ValueError | PermissionError):
        hint = advice(error).replace("store", "place") if not missing else "correct the path"
        return DataError(f"{address}: {cause_of(error)}; expected {expected}; {hint}")
    return Unavailable(
        f"{address} could not be read: {cause_of(error)}; {advice(error)}, then run the same "
        "command to go on"
    )


def _protocols(files: Any) -> tuple[str, ...]:
    protocol = files.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _open(root: str) -> tuple[Any, str]:
    is_s3 = root.startswith(("s3://", "s3a://"))
    try:
        files, path = url_to_fs(root, skip_instance_cache=True, **(s3_options() if is_s3 else {}))
    except Exception as error:
        raise refused(error, root, "an address that fsspec opens") from error
    files.dircache.use_listings_cache = False  # a listing from before would hide a change
    if is_s3:
        files.retries = 1  # `tried` does it
    return files, path.rstrip("/")
