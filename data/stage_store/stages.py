"""Stages in the store: artifacts by their digest, and the record that commits them, written last.

    stages/<key>/<sha256>.<suffix>     artifacts, immutable
    stages/<key>/record.json           the commit: names the artifacts, their digests and sizes
    stages/<key>/<name>.json           what is known beside the commit, written once

A stage is done if its record is intact and every artifact is there in its size, or was pruned.
`lookup` reads no artifact; an artifact's digest is checked each time that it is read. Knows nothing
of how keys are made, what is in an artifact, or which stages a run has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject, NotDeterministic, StoreUnavailable
from epochal.data.hashing import bytes_sha256, file_sha256
from epochal.data.stage_store.records import (
    Artifact,
    StageRecord,
    differences,
    dump_record,
    load_record,
)
from epochal.data.stage_store.status import (
    PRUNED,
    RECORD,
    Damage,
    StageStatus,
    artifact_path,
    read_record,
    read_side_file,
    read_status,
    side_path,
    stage_folder,
)
from epochal.data.store.backend import DAMAGED
from epochal.data.store.hashed_files import WrittenFile
from epochal.data.store.store import MAX_READ_BYTES, Store

__all__ = [
    "PRUNED",
    "RECORD",
    "Artifact",
    "StageRecord",
    "StageStatus",
    "StageStore",
    "stage_folder",
]


class _LostArtifactError(CorruptObject):
    """An artifact is damaged or missing; other ones that are open meanwhile may be intact."""


class StageStore:
    """Reads and commits stages in one store; see the module's text for the layout."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lost: dict[str, str] = {}

    @property
    def store(self) -> Store:
        """The store that the stages are in."""
        return self._store

    @property
    def lost(self) -> Mapping[str, str]:
        """Key → problem, of stages with an artifact that was found missing or damaged when read.

        A stage that was committed again since is not among them.
        """
        return self._lost

    def lookup(self, keys: Sequence[str]) -> dict[str, StageStatus]:
        """The status of each stage. Changes nothing: damaged objects stay where they are."""
        statuses = self._store.map(partial(read_status, self._store), keys)
        return dict(zip(keys, statuses, strict=True))

    def artifact_path(self, record: StageRecord, name: str) -> str:
        """The path of the artifact `name`. Raises NotFound, naming what the record has."""
        return artifact_path(record, name)

    def put_artifact(self, key: str, suffix: str, source: bytes | Path | WrittenFile) -> Artifact:
        """Puts `source` under its own digest; the same intact bytes are there at most once.

        suffix: `safetensors`, `parquet`, `json`. A file of `Store.scratch` is handed over; one that
        was hashed as it was written is not read again.
        """
        source = WrittenFile.of(source) if isinstance(source, Path) else source
        if isinstance(source, WrittenFile):
            sha256, size = source.sha256, source.size
            source = source.path
        else:
            sha256, size = bytes_sha256(source), len(source)
        artifact = Artifact(file=f"{sha256}.{suffix}", sha256=sha256, size=size)
        path = f"{stage_folder(key)}/{artifact.file}"
        while True:
            try:
                self._store.put_new(path, source)
            except FileExistsError:
                if self._problem(path, artifact) is None:
                    return artifact
                self._store.set_aside(path, "its bytes do not have the digest in its name")
            else:
                return artifact

    def commit(self, record: StageRecord) -> StageRecord:
        """Writes `record` after its artifacts were put; returns the record that then stands.

        What happens to a record that is there already:
        - equal bytes: it stands;
        - made in another environment, its artifacts all there: it stands, and is returned;
        - made in another environment, its artifacts lost or pruned: it is set aside;
        - made in this environment from other bytes of its parents: it is set aside;
        - damaged: it is set aside.

        Raises NotDeterministic for other results of the same parents in the same environment.
        """
        path = f"{stage_folder(record.key)}/{RECORD}"
        data = dump_record(record)
        while True:
            try:
                self._store.put_new(path, data)
            except FileExistsError:
                if (standing := self._settle(path, record)) is not None:
                    break
            else:
                standing = load_record(data, name=path, key=record.key)
                break
        self._lost.pop(record.key, None)
        return standing

    def read_artifact(
        self, record: StageRecord, name: str, *, max_bytes: int = MAX_READ_BYTES
    ) -> bytes:
        """The artifact's bytes, their digest checked.

        Raises CorruptObject if they are missing, changed (then they are set aside) or too many.
        """
        path, artifact = artifact_path(record, name), record.artifacts[name]
        if artifact.size > max_bytes:
            raise CorruptObject(
                f"{record.title}: {name} has {artifact.size} bytes, expected at most {max_bytes}"
            )

        def compared(data: bytes) -> bytes:
            if bytes_sha256(data) != artifact.sha256:
                raise CorruptObject(f"{path} does not have its digest")
            return data

        try:
            return self._store.read_intact(path, compared, max_bytes=artifact.size)
        except FileNotFoundError as error:
            raise self._missing(record, name) from error
        except CorruptObject as error:
            raise self._set_aside(record, name) from error

    @contextmanager
    def fetch_artifact(self, record: StageRecord, name: str) -> Iterator[Path]:
        """A local file with the artifact's bytes, their digest checked. Read it only.

        Raises CorruptObject if they are missing or changed (then they are set aside). Where the
        block itself raises CorruptObject, the bytes have the record's digest and are wrong all the
        same: artifact and record are set aside, as `reject` does it.
        """
        path, artifact = artifact_path(record, name), record.artifacts[name]
        with ExitStack() as stack:
            try:
                local = stack.enter_context(self._fetch(path, artifact))
            except FileNotFoundError as error:
                raise self._missing(record, name) from error
            except CorruptObject as error:
                raise self._set_aside(record, name) from error
            try:
                yield local
            except _LostArtifactError:
                raise
            except CorruptObject as error:
                raise self.reject(record, name, error) from error

    def reject(self, record: StageRecord, name: str, error: CorruptObject) -> CorruptObject:
        """Sets aside the artifact and the record; returns the error to raise.

        The digests of both agree, but reading the artifact gave `error`: Epochal never wrote such
        bytes. The stage then counts as not done and is computed again.
        """
        path = artifact_path(record, name)
        address = self._store.address(path)
        paths, reason = (f"{stage_folder(record.key)}/{RECORD}", path), f"{name} of {record.title}"
        moved = [self._moved(one, f"{reason}: {error}") for one in paths][-1]
        return CorruptObject(
            self._note_lost(record, f"its artifact {name} ({address}) {moved}: {error}")
        )

    def verify(self, record: StageRecord) -> list[Damage]:
        """Reads the record and every artifact again: what is wrong. Changes nothing."""
        status = read_status(self._store, record.key)
        if status.problem is not None:
            return [Damage(status.problem, path) for path in status.damaged or (None,)]
        found = []
        for name, artifact in record.artifacts.items():
            path = artifact_path(record, name)
            problem = None if name in status.pruned else self._problem(path, artifact)
            if problem is not None:
                found.append(Damage(f"{record.title}: {name} {problem}", path))
        return found

    def put_side_file(self, key: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the document `name` (`times.json`) beside the commit, once; returns what stands.

        The first writer wins: its body is returned to all. A damaged one is set aside.
        """
        path = side_path(key, name)
        data = dump_document(body)
        while True:
            try:
                self._store.put_new(path, data)
                standing = dict(body)
            except FileExistsError:
                try:
                    stored = self.read_side_file(key, name)
                except CorruptObject as error:
                    self._store.set_aside(path, str(error))
                    continue
                if stored is None:
                    continue  # it was deleted in between
                standing = stored
            return standing

    def read_side_file(self, key: str, name: str) -> dict[str, Any] | None:
        """The body of the document `name`, or None if there is none. Raises CorruptObject."""
        return read_side_file(self._store, key, name)

    def _settle(self, path: str, record: StageRecord) -> StageRecord | None:
        # The record at `path` that stands instead of `record`, or None if `path` is free now.
        try:
            standing = read_record(self._store, record.key)
        except FileNotFoundError:
            return None
        except CorruptObject as error:
            self._store.set_aside(path, str(error))
            return None
        if dump_record(standing) == dump_record(record):
            return standing
        if standing.environment_digest != record.environment_digest:
            status = read_status(self._store, record.key)
            if status.record is not None and not status.pruned:
                return standing
            self._store.set_aside(path, "another environment made it, and its artifacts are gone")
            return None
        if standing.consumed != record.consumed:
            self._store.set_aside(path, "it was made from other bytes of its parent stages")
            return None
        raise NotDeterministic(
            f"{record.title} gave another result in the same environment: "
            f"{'; '.join(differences(standing, record))}. Expected the same bytes: look for random "
            "numbers, threads or files outside the stage's seed and config; to keep the new result "
            f"delete {self._store.address(path)}"
        )

    def _problem(self, path: str, artifact: Artifact) -> str | None:
        try:
            with self._fetch(path, artifact):
                return None
        except FileNotFoundError:
            return "is missing"
        except CorruptObject as error:
            return f"is damaged: {error}"

    def _fetch(self, path: str, artifact: Artifact) -> AbstractContextManager[Path]:
        return self._store.fetch_intact(path, digest=file_sha256, expected=artifact.sha256)

    def _missing(self, record: StageRecord, name: str) -> CorruptObject:
        address = self._store.address(artifact_path(record, name))
        return _LostArtifactError(
            self._note_lost(record, f"its artifact {name} is missing from the store ({address})")
        )

    def _set_aside(self, record: StageRecord, name: str) -> CorruptObject:
        path = artifact_path(record, name)
        moved = self._moved(path, f"{name} of {record.title} does not have its digest")
        return _LostArtifactError(
            self._note_lost(
                record,
                f"the bytes of {name} ({self._store.address(path)}) do not have the digest that "
                f"the record names: the file {moved}",
            )
        )

    def _moved(self, path: str, reason: str) -> str:
        """Sets aside a damaged object that was read; says what became of it.

        Whoever only reads may not be allowed to move it.
        """
        try:
            moved = self._store.set_aside(path, reason)
        except StoreUnavailable as error:
            return f"could not be moved to {DAMAGED}/ ({error.__cause__ or error})"
        return f"was moved to {moved or f'{DAMAGED}/'}"

    def _note_lost(self, record: StageRecord, problem: str) -> str:
        self._lost[record.key] = f"{record.title}: {problem}"
        return f"{record.title}: {problem}; `epochal train` computes it again"
