"""Commits inside an epoch: what a stage has done so far, in its own folder, until it is done.

    stages/<key>/partial/<micro-step>.json         the commit, written last
    stages/<key>/partial/<checksum>.safetensors    its tensors

The newest commit whose bytes are intact counts; if one is damaged, the work since the commit before
it is lost. A finished stage has no such commits any more. Knows nothing of what the tensors are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import file_checksum, is_checksum
from epochal.data.stage_store.status import PARTIAL, stage_folder
from epochal.data.store.hashed_files import ChecksummedFile
from epochal.data.store.store import Store

FORMAT = 2  # 1 had a sha256 where the checksum is
KEEP = 2  # the newest, and one to fall back to
MAX_MANIFEST_BYTES = 1 << 28
_MANIFEST = re.compile(r"(\d{12})\.json")


@dataclass(frozen=True)
class MidEpochCommit:
    """A commit as it was read. body: plain JSON; tensors: a local file, checksum right."""

    micro_steps: int
    body: Mapping[str, Any]
    tensors: Path


@dataclass(frozen=True)
class ListedCommit:
    """A commit by its manifest alone. tensor_bytes: of the file that it names, which is unread."""

    micro_steps: int
    tensor_bytes: int
    body: Mapping[str, Any]


class MidEpochStore:
    """The commits inside one stage."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._folder = f"{stage_folder(key)}/{PARTIAL}"

    def commit(self, micro_steps: int, tensors: ChecksummedFile, body: Mapping[str, Any]) -> None:
        """Puts the file `tensors`, then the manifest; then deletes what nobody needs any more.

        A file of `Store.scratch` is handed over: it may be gone afterwards. If the stage has an
        intact commit of that micro-step, that one stays. Raises StoreUnavailable.
        """
        blob = self._blob(tensors.checksum)
        try:
            self._store.put_new(blob, tensors.path)
        except FileExistsError:
            if not self._is_intact(tensors.checksum):
                self._store.set_aside(blob, "it does not have the checksum that is its name")
                self._store.put_new(blob, tensors.path)
        manifest = {
            "format": FORMAT,
            "micro_steps": micro_steps,
            "tensors": {"xxh3_128": tensors.checksum, "size": tensors.size},
            "body": dict(body),
        }
        path = f"{self._folder}/{micro_steps:012d}.json"
        try:
            self._store.put_new(path, dump_document(manifest))
        except FileExistsError:
            if self._manifest(path) is None:
                self._store.set_aside(path, "it is no commit of an epoch")
                self._store.put_new(path, dump_document(manifest))
        self._retire(path)

    def listed(self) -> list[ListedCommit]:
        """Those whose manifest can be read, of most micro-steps first; for who only looks on.

        A writer may delete any of them meanwhile.
        """
        manifests = map(self._manifest, self._manifests(self._store.listing(self._folder)))
        return [
            ListedCommit(one["micro_steps"], one["tensors"]["size"], one["body"])
            for one in manifests
            if one is not None and isinstance(one["tensors"].get("size"), int)
        ]

    def latest_name(self) -> str | None:
        """The name of the commit of most micro-steps, which changes with each; None without one."""
        names = self._manifests(self._store.listing(self._folder))
        return names[0] if names else None

    @contextmanager
    def newest(
        self, *, fits: Callable[[Mapping[str, Any]], bool], notice: Callable[[str], None]
    ) -> Iterator[MidEpochCommit | None]:
        """The newest intact commit whose body `fits`, or None. Changes nothing.

        notice: told of each that is damaged.
        """
        for path in self._manifests(self._store.listing(self._folder)):
            manifest = self._manifest(path)
            if manifest is None:
                notice(
                    f"{self._store.address(path)} is damaged or of another version of "
                    "Epochal; an older commit is used"
                )
                continue
            if not fits(manifest["body"]):
                continue
            with ExitStack() as stack:
                local = self._tensors(manifest["tensors"]["xxh3_128"], stack)
                if local is not None:
                    yield MidEpochCommit(manifest["micro_steps"], manifest["body"], local)
                    return
            notice(
                f"{self._store.address(path)}: its tensors are damaged or missing; an older "
                "commit of the epoch is used"
            )
        yield None

    def _blob(self, checksum: str) -> str:
        return f"{self._folder}/{checksum}.safetensors"

    def _is_intact(self, checksum: str) -> bool:
        try:
            with self._fetch(checksum):
                return True
        except (FileNotFoundError, CorruptObject):
            return False

    def _fetch(self, checksum: str) -> AbstractContextManager[Path]:
        return self._store.fetch_intact(
            self._blob(checksum), digest=file_checksum, expected=checksum
        )

    def _tensors(self, checksum: str, stack: ExitStack) -> Path | None:
        """A local file with the tensors while `stack` is open, or None if they are not intact."""
        try:
            return stack.enter_context(self._fetch(checksum))
        except (FileNotFoundError, CorruptObject):
            return None

    def discard(self, micro_steps: int, reason: str) -> None:
        """Sets aside a commit whose bytes are intact, but from which no epoch can go on."""
        self._store.set_aside(f"{self._folder}/{micro_steps:012d}.json", reason)

    def clear(self) -> None:
        """Deletes all commits: the stage is done."""
        for path in self._store.listing(self._folder):
            self._store.delete(path)

    def _manifests(self, paths: Iterable[str]) -> list[str]:
        """Those of the folder's paths that name manifests, newest first."""
        names = [path.rpartition("/")[2] for path in paths]
        manifest_names = sorted((name for name in names if _MANIFEST.fullmatch(name)), reverse=True)
        return [f"{self._folder}/{name}" for name in manifest_names]

    def _manifest(self, path: str) -> dict[str, Any] | None:
        """The manifest at `path`, or None if it is missing, damaged or malformed."""
        load = partial(load_document, name=path, max_bytes=MAX_MANIFEST_BYTES)
        try:
            manifest = self._store.read_intact(path, load, max_bytes=MAX_MANIFEST_BYTES)
        except (CorruptObject, FileNotFoundError):
            return None
        tensors, body = manifest.get("tensors"), manifest.get("body")
        well_formed = (
            manifest.get("format") == FORMAT
            and isinstance(tensors, dict)
            and isinstance(tensors.get("xxh3_128"), str)
            and is_checksum(tensors["xxh3_128"])
            and isinstance(body, dict)
            and isinstance(manifest.get("micro_steps"), int)
            and f"{manifest['micro_steps']:012d}.json" == path.rpartition("/")[2]
        )
        return manifest if well_formed else None

    def _retire(self, written: str) -> None:
        """Deletes the commits that no resume needs any more, after `written` was put.

        Two stay of the newest commits, and two of those up to `written`. Commits after `written`
        are of another environment, or of another process that computes the same stage and is
        ahead. What a crash leaves undeleted, the next call deletes. The other process may lose
        tensors by this: when it is resumed, it goes on from an older commit, which costs time and
        nothing else.
        """
        paths = self._store.listing(self._folder)
        manifests = self._manifests(paths)
        kept = self._readable(manifests)
        if manifests[:1] != [written]:
            kept |= self._readable([path for path in manifests if path <= written])
        blobs = {self._blob(manifest["tensors"]["xxh3_128"]) for manifest in kept.values()}
        for path in paths:
            if path.endswith(".safetensors") and path not in blobs:
                self._store.delete(path)
        for path in sorted(manifests):
            if path < written and path not in kept:
                self._store.delete(path)

    def _readable(self, manifests: list[str]) -> dict[str, dict[str, Any]]:
        """Path → manifest, of the first two of these paths whose manifest can be read."""
        readable: dict[str, dict[str, Any]] = {}
        for path in manifests:
            manifest = self._manifest(path)
            if manifest is not None:
                readable[path] = manifest
            if len(readable) == KEEP:
                break
        return readable
