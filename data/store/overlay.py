"""A storage that is only read, and another one over it that takes what is written.

For whoever works with a store as if it were theirs and is to leave it as it is, an archive that is
mounted read-only perhaps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from epochal.data.store.backend import Backend, R, T, UnfinishedUpload


class Overlay:
    """What is written, moved or deleted is so above alone. below: is read, and never changed."""

    def __init__(self, below: Backend, above: Backend) -> None:
        self._below, self._above = below, above
        self._gone: set[str] = set()  # of what lies below

    @property
    def exclusive(self) -> bool:
        """As it is above."""
        return self._above.exclusive

    def put_new(self, path: str, source: bytes | Path) -> None:
        """Above, unless it is below."""
        if self._is_below(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._above.put_new(path, source)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Of above, else of below."""
        return self._holding(path).read(path, max_bytes=max_bytes)

    def size(self, path: str) -> int | None:
        """Likewise."""
        above = self._above.size(path)
        return self._below.size(path) if above is None and path not in self._gone else above

    def listing(self, folder: str) -> dict[str, int]:
        """Of both."""
        below = self._below.listing(folder)
        there = {path: size for path, size in below.items() if path not in self._gone}
        return dict(sorted({**there, **self._above.listing(folder)}.items()))

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """As below, where most is read."""
        return self._below.map(function, items)

    def delete(self, path: str) -> None:
        """Above; what is below is gone for whoever asks here."""
        self._above.delete(path)
        self._gone.add(path)

    def move(self, path: str, target: str) -> None:
        """What is below is copied."""
        if self._is_below(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        if self._above.size(path) is not None:
            self._above.move(path, target)
            return
        with self.fetch(path) as local:
            self._above.put_new(target, local)
        self._gone.add(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """Of above, else of below."""
        with self._holding(path).fetch(path) as local:
            yield local

    def forget(self, path: str) -> None:
        """In both."""
        self._above.forget(path)
        self._below.forget(path)

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """Those above: the others may belong to somebody at work."""
        return self._above.unfinished_uploads(quiet_s=quiet_s)

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Above."""
        self._above.abort_upload(upload)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Above."""
        with self._above.scratch() as folder:
            yield folder

    def _is_below(self, path: str) -> bool:
        return path not in self._gone and self._below.size(path) is not None

    def _holding(self, path: str) -> Backend:
        return (
            self._below if self._above.size(path) is None and self._is_below(path) else self._above
        )
