"""Which shards a path means, and the reading of ranges of them: in any thread, after any fork.

A path is a tar file, a folder of them, a pattern with braces and wildcards, or any of these as an
address that fsspec knows. A local file is read by `pread`, at a position given: no position is
shared by the processes or threads that read it. Of an address, blocks that are told before are
fetched ahead, and what was fetched is kept in the local cache.
"""

from __future__ import annotations

import os
import posixpath
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from epochal.data.errors import DataError, Unavailable
from epochal.data.files.reading import Piece, Reader
from epochal.data.files.storage import Storage, local_path, refused
from epochal.data.hashing import ContentDigest, text_id

MAX_OPEN = 64
"""Files that a process has open at once."""
HELD_BYTES = 256 << 20
"""Of blocks that a process holds, out of which it reads samples."""
MAX_HASHED_BYTES, READ_BYTES = 256_000_000, 8 << 20
NUM_HASHED, HASHED_BYTES = 64, 1 << 16
MAX_SHARDS = 1_000_000
EXPECTED = "a tar file, a folder of them, or a pattern"
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified", "created")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_MAGIC = re.compile(r"[*?\[{]")


@dataclass(frozen=True, slots=True)
class Shard:
    """One archive. name: below `root`, the folder or address that all have in common.

    stamp: its ETag or the time of its last change, as text.
    """

    root: str
    name: str
    size: int
    stamp: str

    @property
    def address(self) -> str:
        """Where it is."""
        return f"{self.root.rstrip('/')}/{self.name}"


def expand_braces(pattern: str) -> Iterator[str]:
    """`a-{00..11}.tar` and `{a,b}.tar` as the names that they stand for, in order.

    Numbers keep leading zeros. Raises DataError for more than a million.
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    before, after = pattern[: found.start()], pattern[found.end() :]
    for choice in _choices(found[1]):
        for rest in expand_braces(after):
            yield f"{before}{choice}{rest}"


def _choices(inside: str) -> Iterator[str]:
    if (numbers := _RANGE.fullmatch(inside)) is None:
        yield from inside.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= MAX_SHARDS:
        raise DataError(f"path: {{{inside}}} stands for more than {MAX_SHARDS:,} shards")
    padded = max(map(len, numbers.groups())) if "0" in {numbers[1][0], numbers[2][0]} else 0
    step = 1 if last >= first else -1
    for number in range(first, last + step, step):
        yield f"{number:0{padded}d}"


def list_shards(path: str, *, name: str) -> list[Shard]:
    """The shards that `path` stands for: those of a folder or a wildcard by name, else as written.

    name: of the data set, for errors. Raises DataError where there are none, or one is missing;
    Unavailable where the storage does not answer.
    """
    local = local_path(path)
    whole = path.rstrip("/") if local is None else str(local)
    try:
        root, found = _found(whole, path, name)
    except (DataError, Unavailable):
        raise
    except Exception as error:
        raise refused(error, f"{name}: {path}", EXPECTED) from error
    if len({one for one, _ in found}) < len(found):
        raise DataError(f"{name}: path: {path!r} names a shard twice")
    return [
        Shard(root=root, name=one, size=int(info["size"]), stamp=stamp_of(info))
        for one, info in found
    ]


_Infos = list[tuple[str, dict[str, Any]]]


def _found(whole: str, path: str, name: str) -> tuple[str, _Infos]:
    """The root, and of each shard the name below it and what fsspec tells of it."""
    magic = _MAGIC.search(whole)
    if magic is not None:
        return _of_pattern(whole[: magic.start()], whole, path, name)
    storage = Storage(whole)
    info = storage.info("")
    if info["type"] != "directory":
        return posixpath.dirname(whole), [(posixpath.basename(whole), info)]
    found = [one for one in storage.entries("") if one[0].endswith(".tar")]
    found = [one for one in found if one[1]["type"] == "file"]
    if not found:
        raise DataError(f"{name}: {path}: found no file NAME.tar in that folder")
    return whole, found


def _of_pattern(before: str, whole: str, path: str, name: str) -> tuple[str, _Infos]:
    root = posixpath.dirname(before)
    storage = Storage(root)
    listings: dict[str, dict[str, dict[str, Any]]] = {}
    found: _Infos = []
    for count, one in enumerate(expand_braces(whole.removeprefix(root).lstrip("/"))):
        if count >= MAX_SHARDS:
            raise DataError(f"{name}: path: {path!r} stands for more than {MAX_SHARDS:,} shards")
        if _MAGIC.search(one):
            found += storage.matching(one)
            continue
        folder = posixpath.dirname(one)
        if folder not in listings:
            listings[folder] = dict(storage.entries(folder))
        if one not in listings[folder]:
            raise DataError(f"{name}: there is no shard {storage.address(one)}")
        found.append((one, listings[folder][one]))
    if not found:
        raise DataError(f"{name}: {path}: nothing there has a name of that pattern")
    return root, found


def stamp_of(info: dict[str, Any]) -> str:
    """What fsspec tells of a file that changes with it, as text."""
    return str(next((info[key] for key in _STAMPS if info.get(key) is not None), ""))


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of a shard that are fetched together: from `start` to before `end`."""

    shard: int
    start: int
    end: int


class ShardFiles:
    """Reads ranges of shards. What it opens is opened in the process that reads."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.is_local = local_path(shards[0].root) is not None
        self._reader = Reader(shards[0].root)
        self._own: _OfProcess | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["shards"])  # type: ignore[misc]  # a new one, as in another process

    def read(self, number: int, start: int, count: int) -> bytes:
        """`count` bytes of that shard from `start` on; fewer at its end.

        Raises DataError for a shard that is not there, Unavailable where the storage fails.
        """
        shard = self.shards[number]
        if not self.is_local:
            end = min(start + count, shard.size)
            return self._reader.read([self._piece(number, start, end)])[0] if end > start else b""
        try:
            return self._of_process().file(shard.address)(start, count)
        except OSError as error:
            raise refused(error, shard.address, "a file that can be read") from error

    def will_read(self, blocks: Iterable[Block]) -> None:
        """Samples of these are read next, by `read_of`; blocks in this order."""
        chosen = list(blocks)
        self._reader.will_read([self._piece(one.shard, one.start, one.end) for one in chosen])
        self._of_process().told = frozenset(chosen)

    def read_of(self, wanted: Sequence[tuple[Block, int, int]]) -> list[bytes]:
        """For each block, start and count these bytes, of an address.

        Out of the block where that was told before, which is held then; all that is missing is
        asked for at the same time. Raises as `read`.
        """
        own = self._of_process()
        told = own.told
        missing: dict[tuple[int, int, int], Piece] = {}
        held: dict[Block, bytes | None] = {}
        for block, start, count in wanted:
            if block not in told:
                missing[block.shard, start, count] = self._piece(block.shard, start, start + count)
            elif block not in held and (data := own.held(block)) is not None:
                held[block] = data
            elif block not in held:
                held[block] = None
                whole = (block.shard, block.start, block.end - block.start)
                missing[whole] = self._piece(block.shard, block.start, block.end)
        read = dict(zip(missing, self._reader.read([*missing.values()]), strict=True))
        found = []
        for block, start, count in wanted:
            if block not in told:
                found.append(read[block.shard, start, count])
                continue
            data = held[block]
            if data is None:
                data = held[block] = read[block.shard, block.start, block.end - block.start]
                own.hold(block, data)
            found.append(data[start - block.start : start - block.start + count])
        return found

    def add_to(self, content: ContentDigest) -> None:
        """Adds the bytes of all shards where they have at most 256 MB, else of 64 pieces of them.

        Positions in a shard show another length of a sample, but not other bytes of the same
        length. Raises as `read`.
        """
        sizes = [shard.size for shard in self.shards]
        total = sum(sizes)
        if total <= MAX_HASHED_BYTES:
            for number, size in enumerate(sizes):
                for start in range(0, size, READ_BYTES):
                    content.add("bytes", self.read(number, start, min(READ_BYTES, size - start)))
            return
        ends_S = np.cumsum(np.array(sizes, dtype=np.int64))
        places = np.linspace(0, total - 1, NUM_HASHED).astype(np.int64)
        numbers = np.searchsorted(ends_S, places, side="right")
        pieces = [
            (number, place - int(ends_S[number]) + sizes[number])
            for number, place in zip(numbers.tolist(), places.tolist(), strict=True)
        ]
        with ThreadPoolExecutor(NUM_HASHED // 8) as pool:
            for data in pool.map(lambda one: self.read(one[0], one[1], HASHED_BYTES), pieces):
                content.add("bytes", data)

    def _piece(self, number: int, start: int, end: int) -> Piece:
        shard = self.shards[number]
        return Piece(shard.name, start, end, text_id(shard.stamp) if shard.stamp else 0)

    def _of_process(self) -> _OfProcess:
        # Two threads may make two at the same time: the one that is left is as good.
        own = self._own
        if own is None or own.pid != os.getpid():
            own = self._own = _OfProcess()
        return own


class _OfProcess:
    """What one process has open, and the blocks that it holds."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.told: frozenset[Block] = frozenset()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._blocks: OrderedDict[Block, bytes] = OrderedDict()

    def file(self, path: str) -> _File:
        with self._lock:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = _File(path)
                if len(self._files) > MAX_OPEN:
                    self._files.popitem(last=False)  # closed once no thread reads it any more
            else:
                self._files.move_to_end(path)
            return file

    def held(self, block: Block) -> bytes | None:
        with self._lock:
            if block in self._blocks:
                self._blocks.move_to_end(block)
            return self._blocks.get(block)

    def hold(self, block: Block, data: bytes) -> None:
        with self._lock:
            self._blocks[block] = data
            while len(self._blocks) > 1 and sum(map(len, self._blocks.values())) > HELD_BYTES:
                self._blocks.popitem(last=False)


class _File:
    """A file that is open for reading, until nothing refers to it any more."""

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __call__(self, start: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, start)
        if len(data) == count or not data:
            return data
        parts = [data]  # more than 2 GiB
        while (got := sum(map(len, parts))) < count and parts[-1]:
            parts.append(os.pread(self._descriptor, count - got, start + got))
        return b"".join(parts)
