"""A store in a folder of a file system: whole files appear by a hard link, or not at all.

A file is written under another name, synced, and linked to its own: unlike a rename, a link never
replaces what is there. Plain system calls, because fsspec's local files are visible half-written.
No symbolic link below the store is followed: it could lead a write or a delete out of the store.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from epochal.data.store.backend import (
    DAMAGED,
    TEMPORARY,
    NotAnObject,
    R,
    T,
    UnfinishedUpload,
)
from epochal.data.store.local_disk import disk, private_folder, second_name, sweep

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalBackend:
    """A folder. It is created by the first write."""

    exclusive = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._swept = False
        self._durable: set[Path] = set()

    def put_new(self, path: str, source: bytes | Path) -> None:
        """Links a synced file. A file of a scratch folder becomes the object; others are copied."""
        if isinstance(source, Path) and source.absolute().is_relative_to(self._root / TEMPORARY):
            disk().sync(source)
            self._link(source, path)
            disk().unlink(source)  # a second name would let its owner change the object
            return
        with self.scratch() as folder:
            temporary = folder / "object"
            if isinstance(source, Path):
                disk().copy(source, temporary)
            else:
                disk().write(temporary, source)
            disk().sync(temporary)
            self._link(temporary, path)

    def _link(self, source: Path, path: str) -> None:
        target = self._place(path)
        self._make_folders(target.parent)
        try:
            disk().link(source, target)
        except OSError as error:
            if error.errno == errno.EEXIST and target.is_dir() and not target.is_symlink():
                self._make_way(path)
                self._link(source, path)
                return
            if error.errno == errno.EEXIST and _is_same_file(source, target):
                return  # the answer to this very link was lost, as it may be on NFS
            if error.errno in _NO_LINKS:
                raise OSError(error.errno, "this file system has no hard links") from error
            raise
        disk().sync(target.parent)

    def _place(self, path: str) -> Path:
        """Where the object is. Raises NotAnObject if a folder on the way is a symbolic link."""
        place = self._root
        for segment in path.split("/")[:-1]:
            place /= segment
            if place.is_symlink():
                raise _symbolic_link(place)
        return self._root / path

    def _make_way(self, path: str) -> None:
        """Moves away a folder that is where an object is to be: no store has made it there."""
        number = 0
        while os.path.lexists(target := self._root / DAMAGED / f"{path}.{number}"):
            number += 1
        self._make_folders(target.parent)
        (self._root / path).rename(target)

    def _make_folders(self, folder: Path) -> None:
        """Makes what is missing, and syncs the name of each on the way, once.

        A folder that is there may come from a process that was killed before it had synced it.
        """
        waiting = []
        while folder not in self._durable or not folder.is_dir():
            if folder.is_dir() and not folder.is_relative_to(self._root):
                break
            waiting.append(folder)
            folder = folder.parent
        for directory in reversed(waiting):
            if not directory.is_dir():
                try:
                    disk().make_folder(directory)
                except FileExistsError:
                    if not directory.is_dir():  # else another process has just made it
                        raise NotADirectoryError(
                            errno.ENOTDIR, "a file is where a folder should be", str(directory)
                        ) from None
            disk().sync(directory.parent)
            self._durable.add(directory)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The first bytes of the file."""
        with _as_object(path), open(self._place(path), "rb", opener=_open_file) as stream:
            return stream.read(max_bytes + 1)

    def size(self, path: str) -> int | None:
        """Its size, or None if there is no such file; of a symbolic link its own."""
        try:
            status = self._place(path).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_object = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
        return status.st_size if is_object else None

    def listing(self, folder: str) -> dict[str, int]:
        """Walks the folder; an absent one is empty."""
        sizes: dict[str, int] = {}
        if folder and (size := self.size(folder)) is not None:
            return {folder: size}  # a file is where the folder should be
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
                    sizes[path] = size
        return dict(sorted(sizes.items()))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other: threads would not make it faster."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """Unlinks it; an absent file is no error."""
        target = self._place(path)
        try:
            disk().unlink(target)
        except (FileNotFoundError, NotADirectoryError):
            return
        disk().sync(target.parent)
        self._sweep_once()

    def move(self, path: str, target: str) -> None:
        """Links it to its new name, then unlinks the old one: a crash leaves both."""
        if (source := self._place(path)).is_symlink():
            self._move_link(source, target)
            return
        self._link(self._file(path), target)
        self.delete(path)

    def _move_link(self, link: Path, path: str) -> None:
        target = self._place(path)
        self._make_folders(target.parent)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        link.rename(target)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """The object's file under a second name: it stays, whoever deletes the object meanwhile.

        Under its own name where it can get no other: in a folder that no store has written to, or
        that this process may not write to.
        """
        place = self._file(path)
        with ExitStack() as stack:
            try:
                held = self._second_name(place, stack)
            except OSError:
                held = self._file(path)  # which says so if the object is gone by now
            yield held

    def _file(self, path: str) -> Path:
        if self.size(path) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if (place := self._place(path)).is_symlink():
            raise _symbolic_link(place)
        return place

    def _second_name(self, place: Path, stack: ExitStack) -> Path:
        parent = self._root / TEMPORARY
        if parent.is_symlink() or not parent.is_dir():
            return place
        self._sweep_once()
        return stack.enter_context(second_name(place, parent))

    def _sweep_once(self) -> None:
        """Takes away what processes have left below `tmp` that were killed before this one began.

        Also the second names of what they read: until then, a deleted object keeps its bytes.
        """
        if self._swept or (parent := self._root / TEMPORARY).is_symlink():
            return
        with suppress(OSError):  # none there, or not to be read: it harms nobody
            sweep(parent)
        self._swept = True

    def forget(self, path: str) -> None:
        """Drops the file from the page cache, where the system can be told to."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError), open(self._place(path), "rb", opener=_open_file) as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:  # noqa: ARG002 - as `Backend` has it
        """None: what a dead process left below `tmp` goes with the next scratch folder."""
        return []

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """There is none."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder below `tmp`, on the store's own device."""
        parent = self._root / TEMPORARY
        self._place(f"{TEMPORARY}/folder")
        self._make_folders(parent)
        self._sweep_once()
        with private_folder(parent) as folder:
            yield folder


@contextmanager
def _as_object(path: str) -> Iterator[None]:
    # Where an object store has no object, a folder or a file in the way is nothing either.
    try:
        yield
    except (NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _open_file(path: str, flags: int) -> int:
    """Opens a regular file and nothing else: a pipe would wait for a writer for ever."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _symbolic_link(Path(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise NotAnObject(errno.EINVAL, "a pipe, socket or device, expected a file", path)


def _is_same_file(one: Path, other: Path) -> bool:
    first, second = one.lstat(), other.lstat()
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _symbolic_link(path: Path) -> NotAnObject:
    return NotAnObject(errno.ELOOP, "a symbolic link, which no store has below it", str(path))
