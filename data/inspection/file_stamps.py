"""Sizes and times of the files that a data set declares: whether it must be read again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from epochal.data.errors import DataError
from epochal.data.hashing import digest
from epochal.data.store.failures import cause_of, storage_errors

_STAMPS = ("ETag", "etag", "LastModified", "mtime", "updated", "last_modified", "created")


def files_stamp(files: Sequence[str], folder: Path) -> list[list[Any]]:
    """For each file `[name, bytes, stamp]`, sorted: another list means that something changed.

    files: as declared: paths relative to `folder`, or addresses as fsspec opens them; a folder
    stands for all files below it. stamp: the time of the last change in ns since 1970; of an
    address its ETag, else what the storage has as such a time.

    Raises DataError for a file that is missing or cannot be looked at.
    """
    stamps: list[list[Any]] = []
    for name in dict.fromkeys(files):
        stamps += [_address_stamp(name)] if "://" in name else _local_stamps(name, folder)
    return sorted(stamps)


MAX_LOOKED_AT = 20_000
"""Files below folders that are looked at where nobody has declared them: 0.1 s on a local disk."""


def quick_stamp(files: Sequence[str], folder: Path) -> str | None:
    """A digest of names, sizes and times of local files, and of all files below local folders.

    None where there are none, more than 20,000, or one cannot be looked at.
    """
    stamps: list[list[Any]] = []
    try:
        for name in dict.fromkeys(files):
            for relative, status in _walk(folder / name):
                stamps.append([name, relative, status.st_size, status.st_mtime_ns])
                if len(stamps) > MAX_LOOKED_AT:
                    return None
    except OSError:
        return None
    return digest("file-stamps", sorted(stamps)) if stamps else None


def _local_stamps(name: str, folder: Path) -> list[list[Any]]:
    path = folder / name
    try:
        stamps = [
            [os.path.normpath(Path(name) / relative), status.st_size, status.st_mtime_ns]
            for relative, status in _walk(path)
        ]
    except OSError as error:
        raise _refused(name, f"{path}: {error.strerror or error}") from error
    if not stamps:
        raise _refused(name, f"{path} is an empty folder")
    return stamps


def _walk(path: Path) -> Iterator[tuple[str, os.stat_result]]:
    if not path.is_dir():
        yield ".", path.stat()
        return
    for inside, _, names in os.walk(path, onerror=_raise):
        for name in names:
            file = Path(inside, name)
            yield str(file.relative_to(path)), file.stat()


def _raise(error: OSError) -> None:
    raise error


def _address_stamp(name: str) -> list[Any]:
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(name)
        files.invalidate_cache()  # a listing from before would hide the change
        info = files.info(path)
    except (ImportError, ValueError) as error:  # a missing package, or a wrong address
        raise _refused(name, cause_of(error)) from error
    except storage_errors() as error:
        raise _refused(name, cause_of(error)) from error
    stamp = next((info[key] for key in _STAMPS if info.get(key) is not None), None)
    return [name, info.get("size"), str(stamp)]


def _refused(name: str, cause: str) -> DataError:
    return DataError(
        f"files: {name!r} cannot be looked at: {cause}; expected a file or folder that exists, "
        "relative to the config's folder, or an address; correct the name, or leave it out"
    )
