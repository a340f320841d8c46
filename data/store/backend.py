"""The operations that a store needs of its storage; a class of each kind of storage has them.

Paths are relative, already checked, and name objects, never folders. Backends raise what the
storage raises; `epochal.data.store.store` turns that into the project's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

TEMPORARY = "tmp"  # top-level folder of files that are still being written
DAMAGED = "damaged"  # top-level folder of objects that were set aside

T = TypeVar("T")
R = TypeVar("R")


class NotAnObject(OSError):
    """Something is at the path, but no object: a symbolic link, a device."""


@dataclass(frozen=True)
class UnfinishedUpload:
    """Parts of an object that the storage keeps, and no listing shows, until somebody ends them.

    path: of the object that it was to be. bytes: of its parts. quiet_s: since the last one came.
    """

    path: str
    id: str
    bytes: int
    quiet_s: float


class Backend(Protocol):
    """One storage. For an absent object methods raise FileNotFoundError, or do as they say."""

    @property
    def exclusive(self) -> bool:
        """Whether of two simultaneous `put_new` of one path only one succeeds."""

    def put_new(self, path: str, source: bytes | Path) -> None:
        """All bytes appear at `path`, or none, or FileExistsError: something is there already."""

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The object's first `max_bytes` + 1 bytes, or all if it has fewer."""

    def size(self, path: str) -> int | None:
        """Bytes of the object, or None if there is none."""

    def listing(self, folder: str) -> dict[str, int]:
        """Path below the store → bytes, for every object below `folder` (`""`: the store).

        If there is an object with the folder's own name instead of a folder: that object alone.
        """

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in order; several at the same time on remote storage."""

    def delete(self, path: str) -> None:
        """Removes the object; nothing happens if there is none."""

    def move(self, path: str, target: str) -> None:
        """Moves an object; FileExistsError if `target` exists."""

    def fetch(self, path: str) -> AbstractContextManager[Path]:
        """A local file with the object's bytes, for reading only.

        It stays while the context is open, also if the object is deleted meanwhile.
        """

    def forget(self, path: str) -> None:
        """The next read of the object comes from the storage itself, not from a copy in memory."""

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """Uploads below the store of which nothing has come for that long: nobody goes on."""

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Drops the upload's parts; nothing happens if it has ended."""

    def scratch(self) -> AbstractContextManager[Path]:
        """A private local folder; `put_new` takes files from it without copying where it can."""
