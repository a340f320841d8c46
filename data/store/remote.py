"""A store on object storage, or on any other file system that fsspec knows.

One conditional request puts one object: `mode="create"`, which S3, Google and Azure decide on
their side. Listings are never cached: a cached one hides what other processes wrote.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.config import conf
from fsspec.core import url_to_fs

from epochal.data.store.addresses import BUCKETED, scheme_of
from epochal.data.store.backend import R, T
from epochal.data.store.failures import storage_errors
from epochal.data.store.local_disk import private_folder, sweep

PART_BYTES = 16 << 20  # of a multipart upload; ten parts are in memory at once
NUM_REQUESTS = 16  # at the same time
NUM_TRIES = 2  # of s3fs, three of botocore each: five would take 7 minutes at a silent server
NUM_CONFLICTS = 5  # S3 answers 409 while another request for the same object is under way
_EXCLUSIVE = {"memory", "s3", "gs", "abfs", "az"}
_EXISTS = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}


class ObjectBackend:
    """A place that fsspec opens; its options come from fsspec's configuration or environment."""

    def __init__(self, address: str) -> None:
        scheme = scheme_of(address)
        self._bucketed = scheme in BUCKETED
        self.exclusive = scheme in _EXCLUSIVE
        self._upload: dict[str, Any] = {"chunksize": PART_BYTES} if scheme == "s3" else {}
        options = _s3_options() if scheme == "s3" else {}
        self._files, self._root = url_to_fs(address, skip_instance_cache=True, **options)
        self._files.dircache.use_listings_cache = False
        if scheme == "s3":
            self._files.retries = NUM_TRIES
        self._swept = False

    def _key(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def put_new(self, path: str, source: bytes | Path) -> None:
        """One conditional put, in parts where it is large.

        FileExistsError may also mean that an earlier try of this very call succeeded and its
        answer was lost: a caller to whom that matters compares the bytes.
        """
        for left in reversed(range(NUM_CONFLICTS)):
            try:
                self._create(path, source)
            except OSError as error:
                code = _s3_code(error)
                if code in _EXISTS:
                    raise FileExistsError(path) from error
                if code not in _CONFLICT or not left:
                    raise
            else:
                return

    def _create(self, path: str, source: bytes | Path) -> None:
        key = self._key(path)
        self._make_parent(key)
        if isinstance(source, Path):
            self._files.put_file(str(source), key, mode="create", **self._upload)
        else:
            self._files.pipe_file(key, source, mode="create", **self._upload)

    def _make_parent(self, key: str) -> None:
        if not self._bucketed:
            self._files.makedirs(key.rpartition("/")[0], exist_ok=True)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """One request for the first bytes."""
        try:
            data = self._files.cat_file(self._key(path), start=0, end=max_bytes + 1)
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
            info = self._files.info(self._key(path))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def listing(self, folder: str) -> dict[str, int]:
        """One listing, however deep; where nothing is it is empty."""
        start = self._key("")
        inside = self._key(f"{folder}/" if folder else "")
        try:
            entries = self._files.find(inside.rstrip("/"), detail=True)
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
            self._files.rm_file(self._key(path))

    def move(self, path: str, target: str) -> None:
        """Copies it, then deletes the old one: a crash leaves both."""
        if self.size(path) is None:
            raise FileNotFoundError(path)
        if self.size(target) is not None:
            raise FileExistsError(target)
        self._make_parent(self._key(target))
        self._files.cp_file(self._key(path), self._key(target))
        self.delete(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """Downloads it into a scratch folder."""
        if not self._bucketed and self.size(path) is None:
            raise FileNotFoundError(path)  # a folder would be downloaded as one
        with self.scratch() as folder:
            local = folder / path.rpartition("/")[2]
            self._files.get_file(self._key(path), str(local))
            yield local

    def forget(self, path: str) -> None:
        """Nothing is kept: each read is a request."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder below the system's temporary one (`TMPDIR`)."""
        parent = Path(tempfile.gettempdir()) / f"epochal-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
        if parent.stat().st_uid != os.getuid():
            raise PermissionError(f"{parent} belongs to somebody else; set TMPDIR to another place")
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


def _s3_options() -> dict[str, Any]:
    # With these a missing endpoint is an error after some 10 s instead of a minute; values of the
    # user's own configuration win.
    limits = {
        "connect_timeout": 3,
        "read_timeout": 30,
        "retries": {"max_attempts": 3, "mode": "standard"},
    }
    return {"config_kwargs": limits | dict(conf.get("s3", {}).get("config_kwargs", {}))}


def _s3_code(error: OSError) -> str | None:
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return None
    code = response.get("Error", {}).get("Code")
    return None if code is None else str(code)
