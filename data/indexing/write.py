"""Writes what an iterable gives as tar shards with an index: once, and after a kill from there on.

The shards are plain tars in WebDataset's layout, their bytes a function of the items alone. What is
done is noted after each shard. A second start reads the iterable from its beginning and compares,
since it cannot be set back otherwise: shards that are there are not written again, and an iterable
that gives other items than before is refused.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from pydantic import Field, ValidationError

from epochal.data.errors import DataError, passes_through
from epochal.data.files.storage import local_path, refused
from epochal.data.hashing import file_sha256
from epochal.data.indexing.build import INDEX_NAME, ITEM_FORM, failures, read_shard
from epochal.data.indexing.headers import BLOCK
from epochal.data.indexing.index import Index, Rows, ShardEntry, write_index
from epochal.data.indexing.parts import split_item
from epochal.data.indexing.shard_files import Shard, ShardFiles
from epochal.data.traces import in_one_line, users_line
from epochal.data.types import Frozen

SHARD_BYTES = 256 << 20
PROGRESS_NAME = "progress.epochal.json"
_WRITING = ".epochal-writing"
MAX_NOTE_BYTES = 1 << 28

Told = Callable[[int, int], None]
"""Told how many samples and shards are done."""


class _Done(Frozen):
    name: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    samples: int = Field(ge=1)


class _Note(Frozen):
    """What is noted while shards are written. source: what they are written from."""

    source: str
    shards: tuple[_Done, ...] = ()


@dataclass(frozen=True)
class Written:
    """Shards that are complete. kept: of them, those that were there before."""

    address: str
    samples: int
    shards: int
    size: int
    kept: int


class Writer:
    """Writes shards below one address. name: of what is written, for errors.

    source: names what the items are made of, so that nothing else is continued. shard_bytes: after
    which a shard is closed.
    """

    def __init__(self, out: str, *, source: str, name: str, shard_bytes: int = SHARD_BYTES) -> None:
        self._out, self._source, self._name = out, source, name
        self._shard_bytes = shard_bytes
        local = local_path(out)
        self._local = local is not None
        with self._telling():
            self._files, self._place = url_to_fs(out if local is None else str(local))
        self._form: str | None = None
        self._samples = self._kept = self._size = self._shards = 0

    def write(self, items: Iterable[Any], *, told: Told | None = None) -> Written:
        """Writes all items, and the index last. Raises DataError, Unavailable."""
        with self._telling(), ExitStack() as stack:
            self._files.makedirs(self._place, exist_ok=True)
            if self._local:
                stack.enter_context(_alone(Path(self._place), self._name))
            folder = stack.enter_context(self._scratch())
            if (complete := self._complete(folder)) is not None:
                return complete
            note = self._note()
            index = folder / INDEX_NAME
            write_index(index, self._shards_of(items, folder, note, told), source=self._source)
            if not self._samples:
                raise DataError(f"{self._name}: gave no item; expected one at least")
            self._put(index, INDEX_NAME)
            self._files.rm_file(f"{self._place}/{PROGRESS_NAME}")
        return Written(self._out, self._samples, self._shards, self._size, self._kept)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except failures() as error:
            where = f"{self._name}: {self._out}"
            raise refused(error, where, "a place that can be written to") from error

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for what is not yet whole; beside the shards, so that a file can move there."""
        if not self._local:
            with tempfile.TemporaryDirectory(prefix="epochal-index-") as elsewhere:
                yield Path(elsewhere)
            return
        folder = Path(self._place) / _WRITING
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _complete(self, folder: Path) -> Written | None:
        """What is there, if it is all; None if there is nothing, or a beginning.

        Raises DataError for something else.
        """
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._place, detail=False)
        except FileNotFoundError:  # where folders are no more than parts of names
            return None
        names = {posixpath.basename(one) for one in found}
        if INDEX_NAME in names and PROGRESS_NAME not in names:
            copy = folder / INDEX_NAME
            self._files.get_file(f"{self._place}/{INDEX_NAME}", str(copy))
            index = Index(copy, name=self._name)
            if index.source != self._source:
                raise self._other("an index and shards")
            size = sum(one.size for one in index.shards)
            count = len(index.shards)
            return Written(self._out, index.count, count, size, kept=count)
        if PROGRESS_NAME not in names and (tars := sorted(n for n in names if n.endswith(".tar"))):
            raise self._other(f"the shard {tars[0]}")
        return None

    def _other(self, found: str) -> DataError:
        return DataError(
            f"{self._name}: {self._out} has {found} of something else, or written with other "
            "options; name another place by --out, or remove what is there"
        )

    def _note(self) -> _Note:
        """What is noted; a new note if there is none. Raises DataError for one of another source.

        Shards that are not as noted are left out, with all that follow.
        """
        address = f"{self._place}/{PROGRESS_NAME}"
        if not self._files.exists(address):
            note = _Note(source=self._source)
            self._save(note)
            return note
        try:
            data = self._files.cat_file(address, start=0, end=MAX_NOTE_BYTES)
            note = _Note.model_validate_json(data, strict=False)
        except ValidationError as error:
            raise DataError(
                f"{self._name}: {self._out}/{PROGRESS_NAME} is damaged; remove it with the shards "
                "beside it, and run the same command again"
            ) from error
        if note.source != self._source:
            raise self._other("the beginning")
        whole: list[_Done] = []
        for done in note.shards:
            address = f"{self._place}/{done.name}"
            if not self._files.exists(address) or self._files.size(address) != done.size:
                break
            whole.append(done)
        return note.model_copy(update={"shards": tuple(whole)})

    def _save(self, note: _Note) -> None:
        data = note.model_dump_json().encode()
        address = f"{self._place}/{PROGRESS_NAME}"
        if not self._local:
            self._files.pipe_file(address, data)
            return
        path = Path(self._place) / _WRITING / PROGRESS_NAME
        path.write_bytes(data)
        self._put(path, PROGRESS_NAME)

    def _put(self, path: Path, name: str) -> None:
        if not self._local:
            self._files.put_file(str(path), f"{self._place}/{name}")
            path.unlink()
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.replace(Path(self._place) / name)

    def _shards_of(
        self, items: Iterable[Any], folder: Path, note: _Note, told: Told | None
    ) -> Iterator[tuple[ShardEntry, Rows]]:
        """Each shard as the index has it, once it is in its place."""
        done = list(note.shards)
        entries = self._entries(items)
        number = 0
        while (first := next(entries, None)) is not None:
            name = f"shard-{number:06d}.tar"
            path = folder / name
            start = self._samples
            self._fill(path, first, entries, told)
            size = path.stat().st_size
            made = _Done(
                name=name, size=size, sha256=file_sha256(path), samples=self._samples - start
            )
            shard = Shard(root=str(folder.absolute()), name=name, size=size, stamp="")
            found = read_shard(ShardFiles([shard]), 0, name=self._name)
            if number < len(note.shards):
                self._compare(note.shards[number], made, start)
                self._kept += 1
                path.unlink()
            else:
                self._put(path, name)
                done.append(made)
                self._save(note.model_copy(update={"shards": tuple(done)}))
            number += 1
            self._shards, self._size = number, self._size + size
            if told is not None:
                told(self._samples, number)
            yield found
        if number < len(note.shards):
            raise self._another(
                f"it ended after {self._samples:,} items, and {note.shards[number].name} was "
                "written with more"
            )

    def _compare(self, before: _Done, now: _Done, start: int) -> None:
        if before != now:
            raise self._another(
                f"{before.name} was written with items {start:,} to "
                f"{start + before.samples - 1:,}, of which some are others now"
            )

    def _another(self, what: str) -> DataError:
        return DataError(
            f"{self._name}: it gives another sequence of items than before: {what}; expected the "
            f"same at each reading (a fixed seed, a fixed order of files); mend it, remove what is "
            f"in {self._out}, and run the same command again"
        )

    def _fill(
        self,
        path: Path,
        first: dict[str, bytes],
        entries: Iterator[dict[str, bytes]],
        told: Told | None,
    ) -> None:
        """Writes one shard, beginning with `first`, up to its size."""
        assert self._form is not None
        comments = {ITEM_FORM: self._form}
        with tarfile.TarFile(path, "w", format=tarfile.PAX_FORMAT, pax_headers=comments) as archive:
            size, parts = 0, first
            while True:
                for part, data in parts.items():
                    member = tarfile.TarInfo(f"{self._samples:012d}.{part}")
                    member.size = len(data)
                    archive.addfile(member, BytesIO(data))
                    vars(archive)["members"].clear()  # else it keeps them all
                    size += (1 + -(-len(data) // BLOCK)) * BLOCK
                self._samples += 1
                if size >= self._shard_bytes:
                    return
                if told is not None and self._samples % 1000 == 0:
                    told(self._samples, self._shards)
                following = next(entries, None)
                if following is None:
                    return
                parts = following

    def _entries(self, items: Iterable[Any]) -> Iterator[dict[str, bytes]]:
        """The parts of each item. Raises DataError for one that raises, or is of another form."""
        number = 0
        source = self._reading(lambda: iter(items), number)
        end = object()
        while (item := self._reading(lambda: next(source, end), number)) is not end:
            try:
                form, parts = split_item(item)
            except TypeError as error:
                raise DataError(f"{self._name}: item {number:,}: {error}") from error
            if not parts:
                raise DataError(f"{self._name}: item {number:,} is empty")
            if self._form is None:
                self._form = form
            if form != self._form:
                raise DataError(
                    f"{self._name}: item {number:,} has the parts {form:.200}, those before have "
                    f"{self._form:.200}; expected the same in all items, of the same types"
                )
            yield parts
            number += 1

    def _reading(self, work: Callable[[], Any], number: int) -> Any:
        try:
            return work()
        except BaseException as error:  # a user's iterable may raise anything
            if passes_through(error):
                raise
            raise DataError(
                f"{self._name}: reading item {number:,} raised {in_one_line(error)}"
                f"{users_line(error)}; mend it and run the same command again: finished shards "
                "are kept"
            ) from error


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Inside the block no other process writes shards into that folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{name}: another process writes shards to {folder}; wait for it, or name another "
                "place by --out"
            ) from None
        yield
    finally:
        os.close(descriptor)
