"""Files that a target reads: those that its `args` name, and those of its `files`. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from epochal.data.errors import DataError
from epochal.data.hashing import digest, file_sha256
from epochal.data.inspection.file_stamps import files_stamp
from epochal.data.types import Target
from epochal.tasks.user_code.targets import with_nested

Stamps = Callable[[Sequence[str], Path], list[list[Any]]]
"""As `files_stamp`: name, bytes and stamp of each file."""


@dataclass(frozen=True)
class NamedFiles:
    """digests: name in the config → sha256 of the content, of an address that of its stamp.

    folders: names in `args` that are folders: nothing is known of what is in them.
    """

    digests: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()

    def paths(self, folder: Path) -> list[Path]:
        """Where the local ones are."""
        return [folder / name for name in self.digests if "://" not in name]


def named_files(target: Target, *, folder: Path, stamps: Stamps = files_stamp) -> NamedFiles:
    """The files that a target names. Raises DataError for one of `files` that is not there.

    stamps: looks at files, at those that lie elsewhere too.

    A path in `args` that is not there is none that is read: the target may write it.
    """
    digests: dict[str, str] = {}
    folders: list[str] = []
    for name in dict.fromkeys(paths_in(target.args)):
        path = folder / name
        if path.is_dir():
            folders.append(name)
        elif path.is_file():
            digests[name] = _sha256(path)
    named = [name for _, inner in with_nested(target, field="") for name in inner.files]
    for name in named:
        for stamp in stamps([name], folder):
            local = "://" not in name
            digests[stamp[0]] = _sha256(folder / stamp[0]) if local else digest("stamp", stamp)
    declared = [os.path.normpath(folder / name) for name in named if "://" not in name]
    return NamedFiles(
        dict(sorted(digests.items())),
        tuple(name for name in folders if os.path.normpath(folder / name) not in declared),
    )


def paths_in(value: JsonValue) -> Iterator[str]:
    """The texts in `args` that are paths: ./x, ../x and /x, also inside lists and mappings."""
    if isinstance(value, str):
        if value.startswith(("./", "../", "/")) and "\0" not in value:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from paths_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from paths_in(item)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
