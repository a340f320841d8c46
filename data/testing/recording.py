"""What happens to a store's folder on the disk, recorded change by change.

    with recorded(tmp / "disk") as recording:   # the store lies somewhere below
        ...                                     # whatever opens a store and writes

Looks through the folder after each system call of a store, so that also what other code does there
(a scratch file, a lock) is seen: as changes that nobody has synced. The bytes of all files are kept
in memory: for small runs. What a crash may leave of it: `epochal.data.testing.crash`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from epochal.data.store import open as opening
from epochal.data.store.addresses import local_folder, scheme_of
from epochal.data.store.backend import Backend
from epochal.data.store.local import LocalBackend
from epochal.data.store.local_disk import Disk, SystemDisk, use_disk

ROOT = 0
"""The node of the recorded folder itself, whose own name is durable."""

Place = tuple[int, str]
"""An entry of a folder: (the folder's node, name)."""


@dataclass(frozen=True)
class Renamed:
    """Entries that change at once. entries: place → the node that it leads to, None: nothing."""

    entries: Mapping[Place, int | None]


@dataclass(frozen=True)
class Written:
    """A file has other bytes. number: of these bytes among `Recording.contents`."""

    node: int
    number: int


@dataclass(frozen=True)
class Synced:
    """The bytes of a file, or the entries of a folder, are on the disk."""

    node: int


@dataclass(frozen=True)
class Promised:
    """The store has answered: an object is there (its node) or is gone (None).

    path: below the recorded folder.
    """

    path: str
    node: int | None


Change = Renamed | Written | Synced | Promised


@dataclass(eq=False)
class Recording:
    """All changes of a folder, in order.

    folders: the nodes that are folders; every other one is a file. contents: of files, by number.
    first: the changes that have led to what was there at the beginning; all of it is on the disk.
    """

    changes: list[Change] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})
    contents: list[bytes] = field(default_factory=list)
    first: int = 0

    def bytes_of(self, node: int, point: int) -> bytes:
        """The bytes of a file after so many changes; none before its first write."""
        number = _written_by(self, point).get(node)
        return b"" if number is None else self.contents[number]


@lru_cache(maxsize=2)  # many files are asked for at one point, and many states have one
def _written_by(recording: Recording, point: int) -> dict[int, int]:
    """Node of a file → the number of its bytes."""
    return {
        change.node: change.number
        for change in recording.changes[:point]
        if isinstance(change, Written)
    }


@dataclass(frozen=True)
class _File:
    """What a look at the folder finds in a place: which file, and in which state.

    stamp: size and time of change; None of a folder, whose entries are looked at one by one.
    """

    inode: int
    stamp: tuple[int, int] | None


class _Recorder:
    """Looks at the folder, and adds to the recording what is other than at the look before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.recording = Recording()
        self._entries: dict[Place, int] = {}  # → node
        self._files: dict[int, _File] = {}  # node →
        self._nodes = ROOT
        self.look()
        for node in range(self._nodes + 1):
            self._add(Synced(node))
        self.recording.first = len(self.recording.changes)

    def look(self) -> None:
        """Adds the changes since the last look: names first, then bytes."""
        look = _Look(self._entries, self._files, self._nodes)
        look.walk(self.root, ROOT)
        before, self._entries, self._files = self._entries, look.entries, look.files
        self._nodes = look.nodes
        gone = {place: node for place, node in before.items() if place not in look.entries}
        for place, node in look.entries.items():
            if look.files[node].stamp is None:
                self.recording.folders.add(node)
            if before.get(place) == node:
                continue
            entries: dict[Place, int | None] = {place: node}
            old = next((other for other, moved in gone.items() if moved == node), None)
            if old is not None:  # one system call has moved it
                entries[old] = None
                del gone[old]
            self._add(Renamed(entries))
        for place in reversed(gone):
            self._add(Renamed({place: None}))
        for node, names in look.written.items():
            for path in names:
                with suppress(FileNotFoundError):  # that name is gone, as the next look finds
                    self.recording.contents.append(path.read_bytes())
                    self._add(Written(node, len(self.recording.contents) - 1))
                    break

    def node_at(self, path: Path) -> int | None:
        """The node of that name at the last look; None if there is none, or not below the root."""
        if not path.is_relative_to(self.root):
            return None
        node = ROOT
        for name in path.relative_to(self.root).parts:
            if (node, name) not in self._entries:
                return None
            node = self._entries[node, name]
        return node

    def synced(self, path: Path) -> None:
        """A sync of this path has returned."""
        node = self.node_at(path)
        if node is not None:
            self._add(Synced(node))

    def promised(self, path: Path, *, there: bool) -> None:
        """An operation of the store on this object has returned."""
        with self.lock:
            node = self.node_at(path) if there else None
            self._add(Promised(path.relative_to(self.root).as_posix(), node))

    def _add(self, change: Change) -> None:
        self.recording.changes.append(change)


class _Look:
    """One look at the folder. entries, files: of the look before; then of this one."""

    def __init__(
        self, entries: Mapping[Place, int], files: Mapping[int, _File], nodes: int
    ) -> None:
        self._before = entries
        self._files = files
        self._inodes = {one.inode: node for node, one in files.items()}
        self._here: dict[int, int] = {}  # inode → node
        self.entries: dict[Place, int] = {}
        self.files: dict[int, _File] = {}
        self.written: dict[int, list[Path]] = {}
        self.nodes = nodes

    def walk(self, folder: Path, parent: int) -> None:
        """Finds all that is below a folder."""
        waiting = []
        for entry, status in _entries(folder):
            is_folder = entry.is_dir(follow_symlinks=False)
            stamp = None if is_folder else (status.st_size, status.st_mtime_ns)
            place, file = (parent, entry.name), _File(status.st_ino, stamp)
            node = self._known(place, file)
            if node is None:
                self.nodes = node = self.nodes + 1
            if not is_folder and self._files.get(node) != file:
                self.written.setdefault(node, []).append(Path(entry.path))
            self._here[file.inode] = node
            self.entries[place], self.files[node] = node, file
            if is_folder:
                waiting.append((Path(entry.path), node))
        for path, node in waiting:
            self.walk(path, node)

    def _known(self, place: Place, file: _File) -> int | None:
        """The node of a file that was seen before, in this place or in another one."""
        if file.inode in self._here:
            return self._here[file.inode]
        node = self._inodes.get(file.inode)
        if node is None:
            return None
        before = self._files[node]
        if self._before.get(place) == node and (before.stamp is None) == (file.stamp is None):
            return node
        # An inode's number is given to another file once its own is gone: of another time then.
        return node if before.stamp == file.stamp else None


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """What is in a folder, by name. Another thread may take some of it away meanwhile."""
    found = []
    with suppress(FileNotFoundError):
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    for entry in found:
        with suppress(FileNotFoundError):
            yield entry, entry.stat(follow_symlinks=False)


class _RecordingDisk:
    """Another disk's calls, each followed by a look at the folder."""

    def __init__(self, disk: Disk, recorder: _Recorder) -> None:
        self._disk = disk
        self._recorder = recorder

    @contextmanager
    def _looked(self) -> Iterator[None]:
        with self._recorder.lock:
            self._recorder.look()  # what was done without us
            try:
                yield
            finally:
                self._recorder.look()

    def write(self, path: Path, data: bytes) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.write(path, data)

    def copy(self, source: Path, path: Path) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.copy(source, path)

    def sync(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.sync(path)
            self._recorder.synced(path)

    def link(self, source: Path, target: Path) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.link(source, target)

    def unlink(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.unlink(path)

    def make_folder(self, path: Path) -> None:
        """As `Disk` has it."""
        with self._looked():
            self._disk.make_folder(path)


class _Promising(LocalBackend):
    """A store's folder; notes what its answers promise."""

    def __init__(self, root: Path, recorder: _Recorder) -> None:
        super().__init__(root)
        self._folder = root
        self._recorder = recorder

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As every folder."""
        super().put_new(path, source)
        self._recorder.promised(self._folder / path, there=True)

    def delete(self, path: str) -> None:
        """As every folder."""
        super().delete(path)
        self._recorder.promised(self._folder / path, there=False)

    def move(self, path: str, target: str) -> None:
        """As every folder."""
        super().move(path, target)
        self._recorder.promised(self._folder / target, there=True)
        self._recorder.promised(self._folder / path, there=False)


@contextmanager
def recorded(folder: Path) -> Iterator[Recording]:
    """Inside the block all changes below `folder` are recorded, of this process's stores.

    What lies there at the beginning counts as durable. Raises OSError if there is no such folder.
    """
    recorder = _Recorder(folder.resolve(strict=True))
    original = opening.backend_at

    def promising(address: str) -> Backend:
        if scheme_of(address) != "file":
            return original(address)
        place = local_folder(address).resolve()
        below = place.is_relative_to(recorder.root)
        return _Promising(place, recorder) if below else original(address)

    before = use_disk(SystemDisk())
    use_disk(_RecordingDisk(before, recorder))
    opening.backend_at = promising
    try:
        yield recorder.recording
        recorder.look()
    finally:
        opening.backend_at = original
        use_disk(before)
