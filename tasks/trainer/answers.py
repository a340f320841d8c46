"""What the orchestration answers while somebody computes: files of the store, small documents."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.records import StageRecord
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.backend import R, T, UnfinishedUpload
from epochal.data.store.store import Store
from epochal.tasks.computing.link import Link

Answer = Callable[..., Any]
"""Takes what was given with the question, and `data` where there were bytes; gives plain JSON, or
bytes."""


def answers_of_store(store: Store) -> dict[str, Answer]:
    """For `AskedStorage`."""

    def put_new(path: str, *, data: bytes | None = None, file: str | None = None) -> None:
        store.put_new(path, data if file is None else Path(file))  # type: ignore[arg-type]

    return {
        "store.put_new": put_new,
        "store.read": lambda path, max_bytes: store.read(path, max_bytes=max_bytes),
        "store.size": store.size,
        "store.listing": store.listing,
        "store.delete": store.delete,
        "store.set_aside": store.set_aside,
    }


class AskedStorage:
    """The store as the trainer sees it, for small documents: each operation is a question.

    A backend, so that what keeps fingerprints need not know where it runs.
    """

    exclusive = True

    def __init__(self, link: Link) -> None:
        self._link = link

    def put_new(self, path: str, source: bytes | Path) -> None:
        """The orchestration puts the bytes, or the file."""
        if isinstance(source, Path):
            self._link.ask("store.put_new", path=path, file=str(source))
        else:
            self._link.ask_bytes("store.put_new", source, path=path)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """The object's bytes; what is too large is an error there already."""
        return self._link.ask_bytes("store.read", path=path, max_bytes=max_bytes)

    def size(self, path: str) -> int | None:
        """Bytes of the object, or None if there is none."""
        size: int | None = self._link.ask("store.size", path=path)
        return size

    def listing(self, folder: str) -> dict[str, int]:
        """Path → bytes, of all below the folder."""
        listed: dict[str, int] = self._link.ask("store.listing", folder=folder)
        return listed

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """Removes the object; nothing happens if there is none."""
        self._link.ask("store.delete", path=path)

    def move(self, path: str, target: str) -> None:
        """Not asked for: the orchestration chooses the target itself."""
        raise NotImplementedError(f"{path} → {target}")

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """Not asked for: artifacts come by the order that names them."""
        raise NotImplementedError(path)
        yield

    def forget(self, path: str) -> None:
        """Nothing: nothing is kept here."""

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:  # noqa: ARG002 - as `Backend` has it
        """None are known here."""
        return []

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """There is none."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this process."""
        with tempfile.TemporaryDirectory(prefix="epochal-trainer-") as folder:
            yield Path(folder)


class ArtifactAnswers:
    """The artifacts of a stage's parents, opened as they are asked for."""

    def __init__(self, stages: StageStore, parents: Mapping[str, StageRecord]) -> None:
        self._stages = stages
        self._parents = parents
        self._open: dict[str, list[ExitStack]] = {}  # by path; several processes ask alike

    @property
    def answers(self) -> dict[str, Answer]:
        """For `ParentArtifacts`."""
        return {
            "fetch": self._fetch,
            "release": self._release,
            "read": self._read,
            "reject": self._reject,
        }

    def close(self) -> None:
        """Closes what is still open."""
        for stacks in self._open.values():
            for stack in stacks:
                stack.close()
        self._open.clear()

    def _fetch(self, role: str, name: str) -> str:
        stack = ExitStack()
        path = stack.enter_context(self._stages.fetch_artifact(self._parents[role], name))
        self._open.setdefault(str(path), []).append(stack)
        return str(path)

    def _release(self, path: str) -> None:
        if stacks := self._open.get(path):
            stacks.pop().close()

    def _read(self, role: str, name: str, max_bytes: int) -> bytes:
        return self._stages.read_artifact(self._parents[role], name, max_bytes=max_bytes)

    def _reject(self, role: str, name: str, reason: str) -> str:
        return str(self._stages.reject(self._parents[role], name, CorruptObject(reason)))
