"""The index of shards: where each sample's parts lie, as columns in one file that is memory-mapped.

An Arrow IPC file of one record batch, not compressed, so that opening reads some kilobytes whatever
the number of samples, the processes of a machine share what they read, and other tools can query
it. Columns, of N samples in the order of the shards: `key`; `offset`, where the sample's first
header is in its shard; and for each part `at.<part>`, where its bytes begin after that (0: the
sample has no such part), `size.<part>`, and `value.<part>` where it is one whole number throughout.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from epochal.data.errors import DataError
from epochal.data.hashing import Checksum, ContentDigest
from epochal.data.types import Frozen

# N samples of the index, R of one shard, S shards

VERSION = 1
MAX_PARTS = 64
MAX_SPAN = (1 << 32) - 1
"""Bytes of a sample with its headers: positions inside it have 32 bits."""
CHECKED_BYTES = 256 << 20
"""Of an index: up to here opening compares it with its checksums, in some 50 ms."""
_META, _CHECKSUMS, _CHECK = b"epochal.index", b"epochal.checksums", b"epochal.check"
_COPY_ROWS = 1 << 20


class ShardEntry(Frozen):
    """What an index knows of one shard.

    rows: samples in it. digest: of its keys, positions and values. missing: part → how many samples
    lack it, and the row of the first one. parts: those that some sample has. values: of them, those
    that are whole numbers in it. item: how its samples are put together, where they were written by
    `epochal data index`. stamp: of the file when it was looked at; empty in an index that lies
    beside its shards, which may be copied together.
    """

    name: str
    size: int = Field(ge=0)
    stamp: str = ""
    rows: int = Field(ge=0)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    missing: Mapping[str, tuple[int, int]] = Field(default_factory=dict)
    parts: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    item: str | None = None


class _Meta(Frozen):
    version: int
    parts: tuple[str, ...] = Field(max_length=MAX_PARTS)
    values: tuple[str, ...] = Field(max_length=MAX_PARTS)
    shards: tuple[ShardEntry, ...]
    source: str | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """The samples of one shard.

    keys: R names. offset_R: int64. at, size: part → uint32 of shape (R,). value: part → int64 of
    shape (R,), for parts that are one whole number in every sample of the shard.
    """

    keys: Sequence[bytes]
    offset_R: npt.NDArray[np.int64]
    at: Mapping[str, npt.NDArray[np.uint32]]
    size: Mapping[str, npt.NDArray[np.uint32]]
    value: Mapping[str, npt.NDArray[np.int64]]

    def digest(self) -> str:
        """Hex sha256 of all of it."""
        content = ContentDigest("tar-shard")
        for key in self.keys:
            content.add("key", key)
        content.add("offset", self.offset_R.astype("<i8").data)
        for part in sorted(self.at):
            content.add(f"at {part}", self.at[part].astype("<u4").data)
            content.add(f"size {part}", self.size[part].astype("<u4").data)
        for part in sorted(self.value):
            content.add(f"value {part}", self.value[part].astype("<i8").data)
        return content.hexdigest()


class Index:
    """An index that is open. Immutable; safe in threads and after a fork."""

    def __init__(self, path: Path, *, name: str) -> None:
        """Opens it. name: of the data set, for errors. Raises DataError if it is damaged."""
        self._path, self._name = path, name
        try:
            source = pa.memory_map(str(path))
            reader = pa.ipc.open_file(source)
            schema = reader.schema
            told = schema.metadata or {}
            if told[_CHECK] != _checksum(told[_META], told[_CHECKSUMS]):
                self._refuse("does not have the checksum that it says")
            meta = _Meta.model_validate_json(told[_META])
            if meta.version != VERSION or schema.types != _schema(meta).types:
                self._refuse("is of another version")
            if schema.names != _schema(meta).names or reader.num_record_batches != 1:
                self._refuse("has other columns than it says")
            batch = reader.get_batch(0)
            batch.validate()
            if path.stat().st_size <= CHECKED_BYTES:
                self._check(batch, told[_CHECKSUMS])
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise DataError(
                f"{name}: the index {path} is damaged: {' '.join(str(error).split()):.200}; "
                "delete it, and write it again by `epochal data index`"
            ) from error
        self.shards, self.parts, self.source = meta.shards, meta.parts, meta.source
        self.count: int = batch.num_rows
        starts = np.cumsum([0, *(one.rows for one in self.shards)], dtype=np.int64)
        if int(starts[-1]) != self.count or any(column.null_count for column in batch.columns):
            self._refuse("does not have the samples that it says")
        self.starts_S1: npt.NDArray[np.int64] = starts
        self._column = {
            one: batch.column(one).to_numpy(zero_copy_only=True)
            for one in schema.names
            if one != "key"
        }
        self.value = {part: self._column[f"value.{part}"] for part in meta.values}
        self.offset_N: npt.NDArray[np.int64] = self._column["offset"]
        self.at = {part: self._column[f"at.{part}"] for part in meta.parts}
        self.size = {part: self._column[f"size.{part}"] for part in meta.parts}
        keys = batch.column("key")
        _, ends, data = keys.buffers()
        self._key_ends: npt.NDArray[np.int64] = np.frombuffer(ends or b"", dtype=np.int64)
        self._key_ends = self._key_ends[keys.offset :]
        self._keys = memoryview(data) if data is not None else memoryview(b"")
        if len(self._key_ends) < self.count + 1 and self.count:
            self._refuse("does not have the keys of all samples")

    def _check(self, batch: Any, checksums: bytes) -> None:
        for column, expected in zip(batch.columns, checksums.split(b" "), strict=True):
            buffers = [one for one in column.buffers() if one is not None]
            if _checksum(*(memoryview(one) for one in buffers)) != expected:
                self._refuse("does not have the checksum that it says")

    def __reduce__(self) -> Any:
        return (_reopened, (self._path, self._name))

    def key(self, row: int) -> bytes:
        """The name that the sample's parts share. Raises DataError if the index is damaged."""
        start, end = int(self._key_ends[row]), int(self._key_ends[row + 1])
        if not 0 <= start <= end <= len(self._keys):
            self._refuse(f"has no key for sample {row}")
        return bytes(self._keys[start:end])

    def rows(self, number: int) -> Rows:
        """What it has of one of its shards."""
        first, end = int(self.starts_S1[number]), int(self.starts_S1[number + 1])
        present = [part for part in self.shards[number].parts if part in self.at]
        return Rows(
            keys=[self.key(row) for row in range(first, end)],
            offset_R=self.offset_N[first:end],
            at={part: self.at[part][first:end] for part in present},
            size={part: self.size[part][first:end] for part in present},
            value={
                part: self.value[part][first:end]
                for part in self.shards[number].values
                if part in self.value
            },
        )

    def _refuse(self, why: str) -> None:
        raise DataError(
            f"{self._name}: the index {self._path} {why}; delete it, and write it again by "
            "`epochal data index`"
        )


def _checksum(*parts: bytes | memoryview) -> bytes:
    checksum = Checksum()
    for part in parts:
        checksum.update(part)
    return checksum.hexdigest().encode()


def _reopened(path: Path, name: str) -> Index:
    return Index(path, name=name)


def _schema(meta: _Meta) -> Any:
    fields = [pa.field("key", pa.large_binary()), pa.field("offset", pa.int64())]
    for part in meta.parts:
        fields += [pa.field(f"at.{part}", pa.uint32()), pa.field(f"size.{part}", pa.uint32())]
    fields += [pa.field(f"value.{part}", pa.int64()) for part in meta.values]
    return pa.schema(fields)


def write_index(
    path: Path, shards: Iterable[tuple[ShardEntry, Rows]], *, source: str | None = None
) -> None:
    """Writes the index of these shards to a new file; holds the rows of one shard at a time.

    source: what the shards were written from. Raises OSError, and DataError for more than 64 parts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".epochal-index-", dir=path.parent) as folder,
        ExitStack() as files,
    ):
        columns = files.enter_context(closing(_Columns(Path(folder))))
        entries = []
        for entry, rows in shards:
            columns.add(rows, name=entry.name)
            entries.append(entry)
        meta = _Meta(
            version=VERSION,
            parts=tuple(sorted(columns.parts)),
            values=tuple(sorted(columns.values)),
            shards=tuple(entries),
            source=source,
        )
        columns.write(path, meta)


class _Columns:
    """Columns that grow in files of their own, since together they may be larger than memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self.parts: set[str] = set()
        self.values: set[str] = set()
        self._count = self._key_bytes = 0
        self._file("key ends").write(np.int64(0).tobytes())
        self._file("key"), self._file("offset")

    def add(self, rows: Rows, *, name: str) -> None:
        """Appends the samples of the next shard. name: of it, for errors."""
        if not rows.keys:
            return
        new = rows.at.keys() - self.parts
        if len(self.parts) + len(new) > MAX_PARTS:
            listed = ", ".join(sorted(self.parts)[:4] + sorted(new)[:4])
            raise DataError(
                f"{name}: its samples, with those before, have more than {MAX_PARTS} kinds of "
                f"parts ({listed}, …); a part's kind is what follows the first dot of its name: "
                "are there dots in the samples' names?"
            )
        for part in new:  # no sample before had it
            for kind in ("at", "size"):
                self._file(f"{kind}.{part}").truncate(4 * self._count)
                self._file(f"{kind}.{part}").seek(0, os.SEEK_END)
        self.values = {
            part
            for part in (self.values if self._count else rows.value.keys())
            if part in rows.value
        }
        self.parts |= new
        self._keys(rows.keys)
        self._append("offset", rows.offset_R.astype("<i8"))
        none_R = np.zeros(len(rows.keys), dtype="<u4")
        for part in self.parts:
            self._append(f"at.{part}", rows.at.get(part, none_R).astype("<u4"))
            self._append(f"size.{part}", rows.size.get(part, none_R).astype("<u4"))
        for part in self.values:
            self._append(f"value.{part}", rows.value[part].astype("<i8"))
        self._count += len(rows.keys)

    def _keys(self, keys: Sequence[bytes]) -> None:
        ends_R = self._key_bytes + np.cumsum(list(map(len, keys)), dtype=np.int64)
        self._append("key ends", ends_R.astype("<i8"))
        self._file("key").write(b"".join(keys))
        self._key_bytes = int(ends_R[-1]) if len(keys) else self._key_bytes

    def _append(self, column: str, values: npt.NDArray[Any]) -> None:
        self._file(column).write(values.data)

    def _file(self, column: str) -> IO[bytes]:
        if column not in self._files:
            self._files[column] = (self._folder / f"{len(self._files)}").open("w+b")
        return self._files[column]

    def write(self, path: Path, meta: _Meta) -> None:
        """The file at `path`, out of the columns as they are on the disk."""
        arrays = []
        for one in _schema(meta):
            buffers = [None, self._buffer(one.name)]
            if one.name == "key":
                buffers.insert(1, self._buffer("key ends"))
            arrays.append(pa.Array.from_buffers(one.type, self._count, buffers))
        text = meta.model_dump_json().encode()
        checksums = b" ".join(
            _checksum(*(memoryview(one) for one in array.buffers() if one is not None))
            for array in arrays
        )
        schema = _schema(meta).with_metadata(
            {_META: text, _CHECKSUMS: checksums, _CHECK: _checksum(text, checksums)}
        )
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    def close(self) -> None:
        """Closes the files of the columns."""
        for file in self._files.values():
            file.close()

    def _buffer(self, column: str) -> Any:
        file = self._file(column)
        file.flush()
        if not os.fstat(file.fileno()).st_size:
            return pa.py_buffer(b"")
        return pa.memory_map(file.name).read_buffer()


def put_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file, which appears at `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
