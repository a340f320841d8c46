"""The files below a folder or an address: names, sizes and stamps of millions, in few bytes.

A local folder is listed in two steps: the names, and, once somebody asks, sizes and times, which
take three times as long. What was listed can be remembered, `epochal.data.files.remembered`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.errors import DataError, Unavailable
from epochal.data.files import look_at
from epochal.data.files.storage import Storage, local_path, refused
from epochal.data.hashing import ContentDigest, text_id

# N files, G folders

MANY_FILES = 50_000  # from here on processes ask for sizes; they take 0.1 s to start
MAX_PROCESSES = 16  # on a network's file system each answer is waited for
_INT64_BYTES = 8
NUM_LISTINGS = 16  # of an address at the same time
_STAMPS = ("ETag", "etag", "LastModified", "mtime", "updated", "last_modified", "created")


@dataclass(frozen=True)
class FolderState:
    """A local folder as it was when it was listed: another one has other files, perhaps."""

    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


@dataclass(frozen=True, eq=False)
class Names:
    """Relative names by folder, sorted: N files in G folders, those without files too.

    folders: relative, `b""` the root. first_G1: where each one's files begin, int64 of (G + 1,).
    base: the names in them, one after another; ends_N: where each ends, int64 of shape (N,).
    """

    folders: list[bytes]
    first_G1: npt.NDArray[np.int64]
    base: bytes | memoryview
    ends_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends_N)

    def __reduce__(self) -> tuple[Any, ...]:
        # What is remembered is a view of a file's bytes, which no process can be sent.
        return Names, (self.folders, self.first_G1, bytes(self.base), self.ends_N)

    def __getitem__(self, position: int) -> bytes:
        """The relative name, with `/` between folders."""
        folder = self.folders[int(np.searchsorted(self.first_G1, position, side="right")) - 1]
        name = self.base_name(position)
        return b"/".join((folder, name)) if folder else name

    def base_name(self, position: int) -> bytes:
        """The name within its folder."""
        start = int(self.ends_N[position - 1]) if position else 0
        return bytes(self.base[start : int(self.ends_N[position])])

    def in_folder(self, number: int) -> list[bytes]:
        """The names in that folder, without it."""
        first, end = int(self.first_G1[number]), int(self.first_G1[number + 1])
        start = int(self.ends_N[first - 1]) if first else 0
        names = []
        for stop in self.ends_N[first:end].tolist():
            names.append(bytes(self.base[start:stop]))
            start = stop
        return names

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Names:
        """From the folders, sorted as `order_of` has it."""
        ordered = list(parts)
        nothing = np.zeros(0, dtype=np.int64)
        lengths_N = np.concatenate([nothing, *(part.lengths for part in ordered)])
        counts_G = np.array([len(part.lengths) for part in ordered], dtype=np.int64)
        return cls(
            folders=[part.folder for part in ordered],
            first_G1=np.append(0, np.cumsum(counts_G)),
            base=b"".join(part.base for part in ordered),
            ends_N=np.cumsum(lengths_N),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """One folder's own files, sorted by name: packed as soon as they are known.

    base: the names, one after another; lengths: of each, int64 of shape (B,).
    """

    folder: bytes
    base: bytes
    lengths: npt.NDArray[np.int64]

    @classmethod
    def of(cls, folder: bytes, names: Sequence[bytes]) -> Part:
        """From the sorted names."""
        lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
        return cls(folder, b"".join(names), lengths)


def order_of(folder: bytes) -> tuple[bytes, bytes]:
    """What folders are sorted by: the first level, then the whole.

    So it is `a`, `a/x`, `a-b`, as torchvision's ImageFolder has it, although `-` is before `/`.
    """
    return folder.partition(b"/")[0], folder


class Listing:
    """The files below a root, sorted by first level, folder and name."""

    def __init__(
        self,
        root: str,
        names: Names,
        *,
        states: list[FolderState] | None = None,
        listed_ns: int = 0,
        sizes_and_stamps: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    ) -> None:
        """states: of the local folders, before they were listed; listed_ns: when that began."""
        self.root = root
        self.names = names
        self.states = states
        self.listed_ns = listed_ns
        self.remembered_as: str | None = None
        self.when_looked_at: Callable[[Listing], None] | None = None
        self._sizes_and_stamps = sizes_and_stamps

    def __len__(self) -> int:
        return len(self.names)

    def text(self, position: int) -> str:
        """The relative name for people and for fsspec."""
        return os.fsdecode(self.names[position])

    @property
    def sizes_N(self) -> npt.NDArray[np.int64]:
        """Bytes of each file: int64 of shape (N,). Raises DataError for one that vanished."""
        return self._looked_at()[0]

    @property
    def stamps_N(self) -> npt.NDArray[np.int64]:
        """A number that changes with the file: ns of the last change, or a hash of its ETag."""
        return self._looked_at()[1]

    @property
    def known_sizes_N(self) -> npt.NDArray[np.int64] | None:
        """`sizes_N`, if they are known by now."""
        return None if self._sizes_and_stamps is None else self._sizes_and_stamps[0]

    def _looked_at(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        if self._sizes_and_stamps is None:
            found = _sizes_and_times(Path(self.root), self.names)
            missing = np.flatnonzero(found[0] < 0)
            if len(missing):
                raise DataError(
                    f"{self.root}: {self.text(int(missing[0]))!r} was listed, and cannot be looked "
                    "at now; expected files that stay while they are used; run the same again"
                )
            self._sizes_and_stamps = found
            if self.when_looked_at is not None:
                self.when_looked_at(self)
        return self._sizes_and_stamps

    def add_to(self, content: ContentDigest) -> None:
        """Adds relative names and sizes, but no time and no place."""
        content.add("folders", b"\0".join(self.names.folders))
        content.add("files of folders", np.diff(self.names.first_G1).astype("<i8").tobytes())
        content.add("names", self.names.base)
        content.add("ends", self.names.ends_N.astype("<i8").tobytes())
        content.add("sizes", self.sizes_N.astype("<i8").tobytes())


def list_files(root: str, *, extensions: Sequence[str], in_root: bool = True) -> Listing:
    """All files below `root` whose name ends in one of `extensions`, in any case.

    root: a folder or an address as fsspec opens it. in_root: with the files directly in it. Names
    that begin with a dot are left out, as are folders of such names. Links are followed.

    Raises DataError for a root that is missing or no folder, and for a link to a folder that it
    lies in itself.
    """
    endings = tuple(os.fsencode(extension.lower()) for extension in extensions)
    local = local_path(root)
    if local is None:
        return _list_address(root, endings, in_root=in_root)
    listed_ns = time.time_ns()
    if not local.is_dir():
        found = "a file" if local.exists() else "nothing there"
        raise DataError(
            f"{root}: found {found}; expected a folder of files ({', '.join(extensions)}); "
            "correct `path`, which is relative to the config's folder if it begins with ./"
        )
    states: dict[bytes, FolderState] = {}
    parts = list(_walk(local, endings, in_root=in_root, states=states))
    names = Names.of(sorted(parts, key=lambda part: order_of(part.folder)))
    return Listing(
        str(local),
        names,
        states=[states[folder] for folder in names.folders],
        listed_ns=listed_ns,
    )


def state_of(path: str | bytes | Path) -> FolderState:
    """The folder as it is now. Raises OSError."""
    status = os.stat(path)  # noqa: PTH116 - bytes, as names are
    return FolderState(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def _walk(
    root: Path, endings: tuple[bytes, ...], *, in_root: bool, states: dict[bytes, FolderState]
) -> Iterator[Part]:
    start = os.fsencode(root)
    waiting: list[tuple[bytes, tuple[tuple[int, int], ...]]] = [(b"", ())]
    while waiting:
        folder, above = waiting.pop()
        path = os.path.join(start, folder) if folder else start  # noqa: PTH118 - bytes, as names are
        try:
            state = state_of(path)
            if (state.device, state.inode) in above:
                raise DataError(
                    f"{root}: {os.fsdecode(folder)!r} is a link to a folder that it lies in, so "
                    "its files have no end of names; remove the link"
                )
            inside = (*above, (state.device, state.inode))
            wanted = in_root or bool(folder)
            names = []
            with os.scandir(path) as entries:
                for entry in entries:
                    name: bytes = entry.name
                    if name.startswith(b"."):
                        continue
                    if entry.is_dir():
                        waiting.append((b"/".join((folder, name)) if folder else name, inside))
                    elif wanted and name.lower().endswith(endings) and entry.is_file():
                        names.append(name)
        except OSError as error:
            raise DataError(
                f"{os.fsdecode(path)} cannot be listed: {error.strerror or error}; expected a "
                "folder that may be read: check its permissions, or move it away"
            ) from error
        states[folder] = state
        names.sort()
        yield Part.of(folder, names)


def _sizes_and_times(
    root: Path, names: Names
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    sizes_N, times_N = (np.empty(len(names), dtype=np.int64) for _ in range(2))

    def put(folder: int, sizes: Any, times: Any) -> None:
        place = slice(int(names.first_G1[folder]), int(names.first_G1[folder + 1]))
        sizes_N[place], times_N[place] = sizes, times

    folders = [folder for folder, size in enumerate(np.diff(names.first_G1)) if size]
    if len(names) < MANY_FILES or not sys.executable:
        for folder in folders:
            put(folder, *look_at.look_at(_path(root, names, folder), names.in_folder(folder)))
        return sizes_N, times_N
    count = min(MAX_PROCESSES, 2 * (os.cpu_count() or 1), len(folders))
    with ThreadPoolExecutor(count) as pool:
        work = [
            pool.submit(_ask, root, names, folders[place::count], put) for place in range(count)
        ]
        for done in work:
            done.result()
    return sizes_N, times_N


def _path(root: Path, names: Names, folder: int) -> bytes:
    inside = names.folders[folder]
    return os.path.join(os.fsencode(root), inside) if inside else os.fsencode(root)  # noqa: PTH118 - bytes


def _ask(
    root: Path, names: Names, folders: Sequence[int], put: Callable[[int, Any, Any], None]
) -> None:
    """Lets a process look at the files of these folders."""
    command = [sys.executable, "-I", "-S", str(Path(look_at.__file__))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own file
        assert process.stdin is not None
        assert process.stdout is not None
        for folder in folders:
            inside = names.in_folder(folder)
            process.stdin.write(look_at.request(_path(root, names, folder), inside))
            process.stdin.flush()
            answer = process.stdout.read(2 * len(inside) * _INT64_BYTES)
            if len(answer) < 2 * len(inside) * _INT64_BYTES:
                raise Unavailable(
                    f"{root}: the process that looks at its files ended ({process.wait()}); if it "
                    "was killed, memory may have run out; run the same command again"
                )
            sizes, times = np.frombuffer(answer, dtype=np.int64).reshape(2, -1)
            put(folder, sizes, times)


@dataclass(frozen=True, eq=False)
class _Sized:
    part: Part
    sizes: npt.NDArray[np.int64]
    stamps: npt.NDArray[np.int64]


def _list_address(root: str, endings: tuple[bytes, ...], *, in_root: bool) -> Listing:
    """One listing for each folder of the first level, several at once, each packed as it comes."""
    storage = Storage(root)

    def packed(folder: str) -> list[_Sized]:
        return _packed(folder, storage.below(folder), endings)

    try:
        first = storage.entries("")
        below = [
            name for name, info in first if info["type"] == "directory" and not name.startswith(".")
        ]
        found = _packed("", first if in_root else [], endings)
        with ThreadPoolExecutor(NUM_LISTINGS if storage.at_once else 1) as pool:
            for folders in pool.map(packed, below):
                found += folders
    except Exception as error:
        raise refused(error, root, "a folder of files that can be listed") from error
    if not first:
        raise DataError(
            f"{root}: found nothing there; expected a folder of files; correct `path`, and look "
            "whether the credentials are those of its owner"
        )
    found.sort(key=lambda folder: order_of(folder.part.folder))
    nothing = np.zeros(0, dtype=np.int64)
    return Listing(
        root,
        Names.of(folder.part for folder in found),
        sizes_and_stamps=(
            np.concatenate([nothing, *(folder.sizes for folder in found)]),
            np.concatenate([nothing, *(folder.stamps for folder in found)]),
        ),
    )


def _packed(
    start: str,
    entries: Iterable[tuple[str, dict[str, Any]]],
    endings: tuple[bytes, ...],
) -> list[_Sized]:
    folders: dict[bytes, list[tuple[bytes, int, int]]] = {os.fsencode(start): []}
    for name, info in entries:
        path = os.fsencode(name)
        folder, _, base = path.rpartition(b"/")
        is_hidden = any(part.startswith(b".") for part in path.split(b"/"))
        if info["type"] == "file" and base.lower().endswith(endings) and not is_hidden:
            folders.setdefault(folder, []).append((base, int(info["size"] or 0), stamp_of(info)))
    packed = []
    for folder, files in folders.items():
        files.sort()
        sizes = np.fromiter((file[1] for file in files), dtype=np.int64, count=len(files))
        stamps = np.fromiter((file[2] for file in files), dtype=np.int64, count=len(files))
        packed.append(_Sized(Part.of(folder, [file[0] for file in files]), sizes, stamps))
    return packed


def stamp_of(info: dict[str, Any]) -> int:
    """A number that changes with the file, from what fsspec tells of it; 0 where it tells none."""
    stamp = next((info[key] for key in _STAMPS if info.get(key) is not None), None)
    return 0 if stamp is None else text_id(str(stamp))
