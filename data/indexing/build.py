"""Makes the index of shards from their headers, and keeps it where the next opening finds it.

An index lies beside its shards, written by `epochal data index`, or else in the cache of this
machine: there one file for each path of shards, of which the entries of shards that have not
changed are used again.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from epochal.data.errors import DataError
from epochal.data.files.local_cache import cache_folder
from epochal.data.files.storage import Storage, local_path, refused
from epochal.data.hashing import digest
from epochal.data.indexing.headers import Member, Members, shown
from epochal.data.indexing.index import (
    MAX_PARTS,
    MAX_SPAN,
    Index,
    Rows,
    ShardEntry,
    put_whole,
    write_index,
)
from epochal.data.indexing.shard_files import Shard, ShardFiles, list_shards, stamp_of
from epochal.data.store.failures import storage_errors

# R samples of a shard

INDEX_NAME = "index.epochal.arrow"
ITEM_FORM = "EPOCHAL.item"
"""Keyword of a global pax header, in which a shard says how its items are put together."""
LOCAL_WINDOW_BYTES = 8 << 10
REMOTE_WINDOW_BYTES = 4 << 20
"""A request takes as long as some MB of transfer: small bodies are read, large ones passed over."""
THREADS = 8
MAX_VALUE_BYTES = 20
_KEY = re.compile(rb"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_WHOLE = re.compile(rb"\s*-?(?:0|[1-9][0-9]*)\s*")
_INT64 = range(-(1 << 63), 1 << 63)

Progress = Callable[[int, int], None]
"""Told how many shards of how many are done."""

T = TypeVar("T")

logger = logging.getLogger(__name__)


def open_index(
    path: str, *, at: str | None, name: str, progress: Progress | None = None
) -> tuple[Index, list[int], list[Shard]]:
    """The index of the shards at `path`, their numbers in it, and the shards.

    It is the one at the address `at`; without that the one beside the shards, where it has all of
    them at their sizes; else the one in the cache, in which what is missing is made now.
    name: of the data set, for errors. Raises DataError.
    """
    shards = list_shards(path, name=name)
    written = _written(shards, at or beside(shards), must=at is not None, name=name)
    if written is not None:
        return written[0], written[1], shards
    source = [shards[0].root, path.rpartition("/")[2]]
    kept = cache_folder() / "shards" / f"{digest('tar-shards', source)}.arrow"
    index = _kept(kept, name=name)
    if index is None or _entries(index) != [(one.name, one.size, one.stamp) for one in shards]:
        write = partial(index_shards, shards=shards, known=index, name=name, progress=progress)
        _told(lambda: put_whole(kept, write), f"{name}: {kept}", "a folder that can be written to")
        index = Index(kept, name=name)
    return index, list(range(len(shards))), shards


def _kept(path: Path, *, name: str) -> Index | None:
    """The index in the cache; None if there is none, or it is damaged: it is made again."""
    if not path.exists():
        return None
    try:
        return Index(path, name=name)
    except DataError as error:
        logger.warning("%s: it is made again", error)
        return None


def _entries(index: Index) -> list[tuple[str, int, str]]:
    return [(one.name, one.size, one.stamp) for one in index.shards]


def beside(shards: Sequence[Shard]) -> str:
    """The address of an index that lies beside these shards."""
    return f"{shards[0].root.rstrip('/')}/{INDEX_NAME}"


def _written(
    shards: Sequence[Shard], address: str, *, must: bool, name: str
) -> tuple[Index, list[int]] | None:
    if (found := _fetched(address, name=name)) is None:
        if must:
            raise DataError(f"{name}: index: there is no {address}; make it: epochal data index")
        return None
    index = Index(found, name=name)
    number_of = {one.name: number for number, one in enumerate(index.shards)}
    for shard in shards:
        number = number_of.get(shard.name)
        if number is None or index.shards[number].size != shard.size:
            what = "has not" if number is None else "has, at another size,"
            text = f"the index {address} {what} the shard {shard.name}"
            if must:
                raise DataError(f"{name}: {text}; write it again by `epochal data index`")
            logger.warning(
                "%s: %s: it is not used; write it again by `epochal data index`", name, text
            )
            return None
    return index, [number_of[shard.name] for shard in shards]


def _fetched(address: str, *, name: str) -> Path | None:
    """The index at the address as a local file, None if there is none; copied once if remote."""
    if (path := local_path(address)) is not None:
        return path if path.is_file() else None
    root, _, file = address.rpartition("/")
    expected = "an index that can be read"
    infos = dict(_told(lambda: Storage(root).entries(""), f"{name}: {root}", expected))
    if file not in infos:
        return None
    identity = [address, infos[file]["size"], stamp_of(infos[file])]
    kept = cache_folder() / "indexes" / f"{digest('tar-index', identity)}.arrow"
    if not kept.exists():
        from fsspec.core import url_to_fs

        files, place = url_to_fs(address)
        copy = lambda path: files.get_file(place, str(path))  # noqa: E731
        _told(lambda: put_whole(kept, copy), f"{name}: {address}", expected)
    return kept


def failures() -> tuple[type[Exception], ...]:
    """What a storage raises, or fsspec for a wrong address or a package that is missing."""
    return (*storage_errors(), ValueError, ImportError)


def _told(work: Callable[[], T], address: str, expected: str) -> T:
    try:
        return work()
    except failures() as error:
        raise refused(error, address, expected) from error


def index_shards(
    path: Path,
    *,
    shards: Sequence[Shard],
    name: str,
    known: Index | None = None,
    stamps: bool = True,
    progress: Progress | None = None,
    source: str | None = None,
) -> None:
    """Writes the index of the shards to a new file.

    known: an index of some of them, whose entries are used for those that have not changed since.
    stamps: whether it says when each shard was last changed. The rest as for `write_index`.
    Several shards are read at once. Raises DataError.
    """
    old = {} if known is None else {one: number for number, one in enumerate(_entries(known))}
    files = ShardFiles(shards)

    def one(number: int) -> tuple[ShardEntry, Rows]:
        shard = shards[number]
        kept = old.get((shard.name, shard.size, shard.stamp))
        if (
            known is not None
            and kept is not None
            and known.value.keys() >= set(known.shards[kept].values)
        ):
            return known.shards[kept], known.rows(kept)
        entry, rows = read_shard(files, number, name=name)
        return (entry if stamps else entry.model_copy(update={"stamp": ""})), rows

    def told() -> Iterator[tuple[ShardEntry, Rows]]:
        for done, found in enumerate(_in_order(one, len(shards)), 1):
            yield found
            if progress is not None:
                progress(done, len(shards))

    write_index(path, told(), source=source)


def write_beside(
    path: str, *, to: str | None, name: str, progress: Progress | None = None
) -> tuple[str, int, int]:
    """Writes the index of the shards at `path` to the address `to`, by default beside them.

    Gives the address, the number of samples, and that of shards. Raises DataError.
    """
    shards = list_shards(path, name=name)
    address = to or beside(shards)
    with tempfile.TemporaryDirectory(prefix="epochal-index-") as folder:
        made = Path(folder) / INDEX_NAME
        index_shards(made, shards=shards, name=name, stamps=False, progress=progress)
        count = Index(made, name=name).count
        _told(lambda: _put(made, address), address, "a place that can be written to")
    return address, count, len(shards)


def _put(made: Path, address: str) -> None:
    from fsspec.core import url_to_fs

    if (path := local_path(address)) is not None:
        put_whole(path, lambda path: shutil.copyfile(made, path))
        return
    files, place = url_to_fs(address)
    files.put_file(str(made), place)


def _in_order(work: Callable[[int], Any], count: int) -> Iterator[Any]:
    """`work` of 0, 1, …, in threads; at most twice as many results as threads wait at a time."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="index") as pool:
        waiting = [pool.submit(work, number) for number in range(min(2 * THREADS, count))]
        try:
            for number in range(count):
                yield waiting.pop(0).result()
                if number + 2 * THREADS < count:
                    waiting.append(pool.submit(work, number + 2 * THREADS))
        finally:
            for one in waiting:
                one.cancel()


def read_shard(files: ShardFiles, number: int, *, name: str) -> tuple[ShardEntry, Rows]:
    """What an index has of one shard, from its headers. Raises DataError, naming it."""
    shard = files.shards[number]
    members = Members(
        partial(files.read, number),
        shard.size,
        name=f"{name}: {shard.address}",
        window_bytes=LOCAL_WINDOW_BYTES if files.is_local else REMOTE_WINDOW_BYTES,
    )
    samples = _Samples(members, place=f"{name}: {shard.address}")
    for member in members:
        samples.add(member)
    rows, missing = samples.rows()
    form = members.comments.get(ITEM_FORM)
    entry = ShardEntry(
        name=shard.name,
        size=shard.size,
        stamp=shard.stamp,
        rows=len(rows.keys),
        digest=rows.digest(),
        missing=missing,
        parts=tuple(sorted(rows.at)),
        values=tuple(sorted(rows.value)),
        item=None if form is None else form.decode("utf-8", "backslashreplace"),
    )
    return entry, rows


class _Samples:
    """Puts members together to samples: those that follow one another with the same key."""

    def __init__(self, members: Members, *, place: str) -> None:
        self._members = members
        self._place = place
        self._keys: dict[bytes, int] = {}
        self._last: bytes | None = None
        self._offsets: list[int] = []
        self._found: dict[str, dict[int, tuple[int, int]]] = {}
        self._values: dict[str, list[int] | None] = {}

    def add(self, member: Member) -> None:
        matched = _KEY.fullmatch(member.name)
        if matched is None:  # no sample's: as WebDataset, `README`, `._cat.jpg` of a Mac
            return
        key, part = matched[1], _part(matched[2])
        if key != self._last:
            if key in self._keys:
                self._refuse(member, "comes after other samples: parts of a sample lie together")
            self._keys[key] = len(self._keys)
            self._last = key
            self._offsets.append(member.start)
        row = len(self._offsets) - 1
        found = self._found.setdefault(part, {})
        if row in found:
            self._refuse(member, "is there twice")
        if len(self._found) > MAX_PARTS:
            listed = ", ".join(list(self._found)[:8])
            self._refuse(
                member,
                f"is one of more than {MAX_PARTS} kinds of parts ({listed}, …); a part's kind is "
                "what follows the first dot of its name: are there dots in the samples' names?",
            )
        at = member.body - self._offsets[row]
        if at + member.size > MAX_SPAN:
            self._refuse(member, "makes its sample larger than 4 GiB")
        found[row] = (at, member.size)
        self._note_value(part, row, member)

    def _note_value(self, part: str, row: int, member: Member) -> None:
        values = self._values.setdefault(part, [])
        if values is None:
            return
        value = None
        if len(values) == row and 0 < member.size <= MAX_VALUE_BYTES:
            text = self._members.bytes_at(member.body, member.size)
            value = int(text) if _WHOLE.fullmatch(text) else None
        if value is None or value not in _INT64:
            self._values[part] = None
        else:
            values.append(value)

    def _refuse(self, member: Member, why: str) -> None:
        raise DataError(f"{self._place}: member {shown(member.name)} {why}; write the shard anew")

    def rows(self) -> tuple[Rows, dict[str, tuple[int, int]]]:
        """The samples, and for each part how many lack it, and the first that does."""
        count = len(self._offsets)
        at: dict[str, Any] = {}
        size: dict[str, Any] = {}
        missing: dict[str, tuple[int, int]] = {}
        for part, found in self._found.items():
            at[part], size[part] = np.zeros((2, count), dtype=np.uint32)
            rows = np.fromiter(found, dtype=np.int64, count=len(found))
            both = np.array(list(found.values()), dtype=np.int64)
            at[part][rows], size[part][rows] = both[:, 0], both[:, 1]
            if len(found) < count:
                missing[part] = (count - len(found), int(np.argmin(at[part])))
        value = {
            part: np.array(values, dtype=np.int64)
            for part, values in self._values.items()
            if values is not None and len(values) == count
        }
        offset_R = np.array(self._offsets, dtype=np.int64)
        return Rows(list(self._keys), offset_R, at, size, value), missing


def _part(text: bytes) -> str:
    return text.decode("utf-8", "backslashreplace").lower()
