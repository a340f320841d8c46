"""A store in a folder of a file system: whole files appear by a hard link, or not at all.

A file is written under another name, synced, and linked to its own: unlike a rename, a link never
replaces what is there. Plain system calls, because fsspec's local files are visible half-written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from epochal.data.backends import TEMPORARY, R, T
from epochal.data.scratch import private_folder, sweep

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalBackend:
    """A folder. It is created by the first write."""

    exclusive = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept = False

    def put_new(self, path: str, source: bytes | Path) -> None:
        """Links a synced file; a file of a scratch folder is moved, any other is copied first."""
        if isinstance(source, Path) and source.absolute().is_relative_to(self._root / TEMPORARY):
            _sync(source)
            self._link(source, path)
            source.unlink()  # a second name would let its owner change the object
            return
        with self.scratch() as folder:
            temporary = folder / "object"
            if isinstance(source, Path):
                shutil.copyfile(source, temporary)
            else:
                temporary.write_bytes(source)
            _sync(temporary)
            self._link(temporary, path)

    def _link(self, source: Path, path: str) -> None:
        target = self._root / path
        _make_folders(target.parent)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise OSError(error.errno, "this file system has no hard links") from error
            raise
        _sync(target.parent)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The first bytes of the file."""
        with _as_object(path), (self._root / path).open("rb") as stream:
            return stream.read(max_bytes + 1)

    def size(self, path: str) -> int | None:
        """Its size, or None if there is no such file."""
        try:
            found = (self._root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def listing(self, folder: str) -> dict[str, int]:
        """Walks the folder; an absent one is empty."""
        found: dict[str, int] = {}
        waiting = [folder]
        while waiting:
            inside = waiting.pop()
            try:
                entries = list(os.scandir(self._root / inside))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif (size := self.size(path)) is not None:
                    found[path] = size
        return dict(sorted(found.items()))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other: threads would not make it faster."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """Unlinks it; an absent file is no error."""
        target = self._root / path
        try:
            target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        _sync(target.parent)

    def move(self, path: str, target: str) -> None:
        """Links it to its new name, then unlinks the old one: a crash leaves both."""
        with self.fetch(path) as source:
            self._link(source, target)
        self.delete(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """The object's own file."""
        if self.size(path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        yield self._root / path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder below `tmp`, on the store's own device."""
        parent = self._root / TEMPORARY
        _make_folders(parent)
        if not self._swept:
            sweep(parent)
            self._swept = True
        with private_folder(parent) as folder:
            yield folder


@contextmanager
def _as_object(path: str) -> Iterator[None]:
    # Where an object store has no object, a folder or a file in the way is nothing either.
    try:
        yield
    except (NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        try:
            new.mkdir()
        except FileExistsError:
            if not new.is_dir():  # else another process has just made it
                raise NotADirectoryError(
                    errno.ENOTDIR, "a file is where a folder should be", str(new)
                ) from None
        _sync(new.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
