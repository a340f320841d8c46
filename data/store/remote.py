"""A store on object storage, or on any other file system that fsspec knows.

One conditional request puts one object: `mode="create"`, which Google and Azure decide on their
side (S3 is in `epochal.data.store.s3`). Listings are never cached: a cached one hides what other
processes wrote.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from epochal.data.store.addresses import BUCKETED, scheme_of
from epochal.data.store.backend import R, T, UnfinishedUpload
from epochal.data.store.failures import storage_errors
from epochal.data.store.local_disk import private_folder, sweep, user_folder
from epochal.data.store.retry import tried

NUM_REQUESTS = 16  # at the same time
_EXCLUSIVE = {"memory", "s3", "gs", "abfs", "az"}


class ObjectBackend:
    """A place that fsspec opens; its options come from fsspec's configuration or environment."""

    def __init__(self, address: str, **options: Any) -> None:
        scheme = scheme_of(address)
        self._bucketed = scheme in BUCKETED
        self.exclusive = scheme in _EXCLUSIVE
        self._files, self._root = url_to_fs(address, skip_instance_cache=True, **options)
        self._files.dircache.use_listings_cache = False
        self._swept = False

    @property
    def place(self) -> tuple[Any, str]:
        """The file system as fsspec has it, and the store's folder there: to read only."""
        return self._files, self._root.rstrip("/")

    def _key(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def put_new(self, path: str, source: bytes | Path) -> None:
        """One conditional put.

        FileExistsError may also mean that an earlier try of this very call succeeded and its
        answer was lost: a caller to whom that matters compares the bytes.
        """
        key = self._key(path)

        def put() -> None:
            self._make_parent(key)
            if isinstance(source, Path):
                self._files.put_file(str(source), key, mode="create")
            else:
                self._files.pipe_file(key, source, mode="create")

        tried(put)

    def _make_parent(self, key: str) -> None:
        if not self._bucketed:
            self._files.makedirs(key.rpartition("/")[0], exist_ok=True)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """One request for the first bytes."""
        try:
            data = tried(lambda: self._files.cat_file(self._key(path), start=0, end=max_bytes + 1))
        except FileNotFoundError:
            raise
        except storage_errors():
            if self.size(path) == 0:  # an empty object has no first byte to ask for
                return b""
            raise
        return bytes(data)

    def size(self, path: str) -> int | None:
        """Its size, or None if there is no such object."""
        try:
            info = tried(lambda: self._files.info(self._key(path)))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def listing(self, folder: str) -> dict[str, int]:
        """One listing, however deep; where nothing is it is empty."""
        start = self._key("")
        inside = self._key(f"{folder}/" if folder else "")
        try:
            entries = tried(lambda: self._files.find(inside.rstrip("/"), detail=True))
        except FileNotFoundError:
            return {}
        return {
            name.removeprefix(start): int(info["size"])
            for name, info in sorted(entries.items())
            if (name.startswith(inside) or name == inside.rstrip("/"))
            and info["type"] == "file"
            and not name.endswith("/")
        }

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Up to 16 at once, where the file system is made for it."""
        if not self._files.async_impl:
            return [function(item) for item in items]
        with ThreadPoolExecutor(NUM_REQUESTS) as pool:
            return list(pool.map(function, items))

    def delete(self, path: str) -> None:
        """Deletes it; an absent object is no error."""
        with suppress(FileNotFoundError):
            tried(lambda: self._files.rm_file(self._key(path)))

    def move(self, path: str, target: str) -> None:
        """Copies it, then deletes the old one: a crash leaves both."""
        if self.size(path) is None:
            raise FileNotFoundError(path)
        if self.size(target) is not None:
            raise FileExistsError(target)
        self._make_parent(self._key(target))
        tried(lambda: self._files.cp_file(self._key(path), self._key(target)))
        self.delete(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """Downloads it into a scratch folder."""
        if not self._bucketed and self.size(path) is None:
            raise FileNotFoundError(path)  # a folder would be downloaded as one
        with self.scratch() as folder:
            local = folder / path.rpartition("/")[2]
            tried(lambda: self._files.get_file(self._key(path), str(local)))
            yield local

    def forget(self, path: str) -> None:
        """Nothing is kept: each read is a request."""

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:  # noqa: ARG002 - as `Backend` has it
        """None: Google and Azure drop them by themselves after a week, and charge nothing."""
        return []

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """There is none."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder below the system's temporary one (`TMPDIR`)."""
        parent = user_folder(Path(tempfile.gettempdir()))
        if not self._swept:
            sweep(parent)
            self._swept = True
        with private_folder(parent) as folder:
            yield folder


class MemoryBackend(ObjectBackend):
    """The memory of one process, for tests: a lock stands for the conditional request."""

    _lock = threading.Lock()

    def put_new(self, path: str, source: bytes | Path) -> None:
        """Puts all bytes under the lock."""
        data = source.read_bytes() if isinstance(source, Path) else source
        with self._lock:
            if self.size(path) is not None:
                raise FileExistsError(path)
            self._files.pipe_file(self._key(path), data)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """Copies it: two who open one of fsspec's memory files share its position."""
        data = self._files.cat_file(self._key(path))
        with self.scratch() as folder:
            local = folder / path.rpartition("/")[2]
            local.write_bytes(data)
            yield local

    def move(self, path: str, target: str) -> None:
        """Moves it under the lock."""
        with self._lock:
            super().move(path, target)
