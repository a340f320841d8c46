"""The files that a data set's `path` names, on any file system: listing, content, local copies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from epochal.data.errors import DataError
from epochal.data.files.local_cache import cache_folder
from epochal.data.hashing import BLOCK_BYTES, Checksum, digest
from epochal.data.store.failures import cause_of, storage_errors

WHOLE_BYTES = 2 << 30
"""Up to so many bytes the content is hashed whole (0.2 s in memory); of more, `SLICES` of it."""
SLICES, SLICE_BYTES = 64, 1 << 16
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "updated", "last_modified", "created")
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class File:
    """One file. name: below what `path` names, with `/`. address: as its file system takes it.

    stamp: time of its last change, or ETag.
    """

    name: str
    address: str
    size: int
    stamp: str


class Files:
    """Files of one file system, by name. owner: name of the data set, for errors."""

    def __init__(self, system: Any, files: Sequence[File], *, owner: str, local: bool) -> None:
        self._system = system
        self._files = tuple(files)
        self._owner = owner
        self._local = local

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[File]:
        return iter(self._files)

    def __getitem__(self, number: int) -> File:
        return self._files[number]

    @cached_property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self._files)

    @contextmanager
    def opened(self, number: int) -> Iterator[BinaryIO]:
        """The file, unpacked where its name ends in .gz, .bz2 or .xz. Raises DataError."""
        file = self._files[number]
        with self._told(file):
            opened = self._system.open(
                file.address, "rb", compression="infer" if _is_packed(file.name) else None
            )
        with opened as stream:
            yield cast("BinaryIO", stream)

    def bytes_of(self, number: int, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of the file as it is stored. Raises DataError."""
        file = self._files[number]
        with self._told(file):
            data: bytes = self._system.cat_file(file.address, start=start, end=end)
        return data

    def local_path(self, number: int) -> Path:
        """Where the file can be mapped into memory; one of elsewhere is copied into the cache."""
        file = self._files[number]
        if self._local:
            return Path(file.address)
        protocol = self._system.unstrip_protocol(file.address)
        name = digest("cached-file", [protocol, file.size, file.stamp])
        suffix = Path(file.name).suffix
        with made_once(cache_folder() / "files" / f"{name}{suffix}") as copy:
            if copy is not None:
                with self._told(file):
                    self._system.get_file(file.address, str(copy))
        return cache_folder() / "files" / f"{name}{suffix}"

    def content_digest(self) -> str:
        """Of names, sizes and bytes; of more than 2 GB: of the first bytes and 64 spread slices."""
        return self._content_digest

    @cached_property
    def _content_digest(self) -> str:
        parts: list[Any] = [[file.name if len(self) > 1 else "", file.size] for file in self]
        if self.is_sampled:
            parts += [_checksum_of(data) for data in self._slices()]
        else:
            parts += [self._checksum(number) for number in range(len(self))]
        return digest("files-content", parts)

    @property
    def is_sampled(self) -> bool:
        """Whether `content_digest` reads slices only."""
        return self.total_bytes > WHOLE_BYTES

    def stamp(self) -> str:
        """Changes whenever a file does: of names, sizes, times of change or ETags."""
        return digest("files-stamp", [[file.name, file.size, file.stamp] for file in self])

    def _checksum(self, number: int) -> str:
        file = self._files[number]
        checksum = Checksum()
        with self._told(file), self._system.open(file.address, "rb") as stream:
            while block := stream.read(4 * BLOCK_BYTES):
                checksum.update(block)
        return checksum.hexdigest()

    def _slices(self) -> Iterator[bytes]:
        yield self.bytes_of(0, 0, min(SLICE_BYTES, self[0].size))
        steps = [self.total_bytes * step // SLICES for step in range(SLICES)]
        begin, number = 0, 0
        for place in steps:
            while place >= begin + self[number].size:
                begin += self[number].size
                number += 1
            start = place - begin
            yield self.bytes_of(number, start, min(start + SLICE_BYTES, self[number].size))

    @contextmanager
    def _told(self, file: File) -> Iterator[None]:
        try:
            yield
        except storage_errors() as error:
            raise DataError(
                f"{self._owner}: {file.name} cannot be read: {cause_of(error)}; expected a file "
                "that is there and readable"
            ) from error


def _checksum_of(data: bytes) -> str:
    checksum = Checksum()
    checksum.update(data)
    return checksum.hexdigest()


def list_files(path: str, *, suffixes: Sequence[str], name: str) -> Files:
    """The files that `path` names, sorted by name: one file, all of a folder and below, or a glob.

    path: of this machine, or any fsspec URL. suffixes: of the files that are taken from a folder,
    also with .gz and the like behind; files whose name begins with a dot or an underscore are left
    out. name: of the data set, for errors. Raises DataError where there is none.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if not isinstance(path, str) or not path or "\0" in path:
        raise DataError(f"{name}: path: found {path!r:.80}; expected a file, a folder or a glob")
    try:
        system, root = url_to_fs(path)
        system.invalidate_cache()  # a listing from before would hide a change
        found, base = _found(system, root)
    except FileNotFoundError:
        found, base = {}, ""
    except (ImportError, ValueError) as error:  # a missing package, or a wrong address
        raise DataError(f"{name}: path: {path!r}: {cause_of(error)}") from error
    except storage_errors() as error:
        raise DataError(f"{name}: path: {path!r}: {cause_of(error)}") from error
    files = [
        File(
            name=address.removeprefix(base).lstrip("/") if base else PurePosixPath(address).name,
            address=address,
            size=int(info["size"] or 0),
            stamp=str(next((info[key] for key in _STAMPS if info.get(key) is not None), None)),
        )
        for address, info in found.items()
        if info.get("type") == "file"
    ]
    if base and not _GLOB & set(root):
        files = [file for file in files if _is_taken(file.name, suffixes)]
    if not files:
        what = f"files that end in {', '.join(suffixes)}" if base else "a file, a folder or a glob"
        raise DataError(f"{name}: path: nothing is found at {path!r}; expected {what}")
    files.sort(key=lambda file: file.name)
    return Files(system, files, owner=name, local=isinstance(system, LocalFileSystem))


def _found(system: Any, root: str) -> tuple[dict[str, Any], str]:
    """Address to information, and the folder that names are below; empty for one file."""
    if _GLOB & set(root) and not system.exists(root):
        parts = root.split("/")
        fixed = next(place for place, part in enumerate(parts) if _GLOB & set(part))
        return system.glob(root, detail=True), "/".join(parts[:fixed])
    info = system.info(root)
    if info["type"] == "directory":
        return system.find(root, detail=True), root.rstrip("/")
    return {root: info}, ""


_PACKED = (".gz", ".bz2", ".xz")


def _is_packed(name: str) -> bool:
    return name.endswith(_PACKED)


def _is_taken(name: str, suffixes: Sequence[str]) -> bool:
    if any(part.startswith((".", "_")) for part in name.split("/")):
        return False
    return kind_of(name) in suffixes


def kind_of(name: str) -> str:
    """The ending that says what a file is: `.csv` of `a.CSV.gz`."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in _PACKED else path.suffix


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A temporary file to write, which then appears whole at `path`; None where that is there."""
    if path.exists():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(descriptor)
    try:
        yield Path(temporary)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
