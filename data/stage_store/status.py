"""What the store has of a stage. Only reads; changes nothing.

Goes by the record's digest and the artifacts' sizes, which costs one listing and one small read for
each stage; `epochal.data.stage_store.stages` checks the digests of the artifacts that are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from epochal.data.documents import MAX_DOCUMENT_BYTES, load_document
from epochal.data.errors import BadStore, CorruptObject, NotFound
from epochal.data.stage_store.records import StageRecord, is_sha256, load_record
from epochal.data.store.addresses import is_segment
from epochal.data.store.store import Store

RECORD = "record.json"
PARTIAL = "partial"  # the folder of commits inside an epoch
STARTED = "started, not yet committed"
PRUNED = "thinned.json"  # {"artifacts": [names]}: what retention has deleted


@dataclass(frozen=True)
class StageStatus:
    """What the store has of one stage.

    record: the commit, or None if the stage is not done.
    problem: why it is not done although something is there, in words; None if nothing is.
    damaged: paths of the objects to set aside before it can be done again.
    pruned: names of the artifacts of a done stage that retention has deleted.
    leftovers: paths of commits inside the epoch that a done stage no longer needs.
    """

    record: StageRecord | None
    problem: str | None = None
    damaged: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Damage:
    """Something wrong in a store. problem: in words. path: what to set aside, if anything is."""

    problem: str
    path: str | None = None


def stage_folder(key: str) -> str:
    """The folder of the stage `key`. Raises BadStore if it is no 64 hexadecimal digits."""
    if not is_sha256(key):
        raise BadStore(f"{key!r} is no stage key: expected 64 hexadecimal digits")
    return f"stages/{key}"


def artifact_path(record: StageRecord, name: str) -> str:
    """The path of the artifact `name`. Raises NotFound, naming what the record has."""
    if name not in record.artifacts:
        known = ", ".join(sorted(record.artifacts)) or "none"
        raise NotFound(f"{record.title} has no artifact {name!r}; it has {known}")
    return f"{stage_folder(record.key)}/{record.artifacts[name].file}"


def side_path(key: str, name: str) -> str:
    """The path of a document beside the commit. Raises BadStore for a name that is taken."""
    stem, _, suffix = name.rpartition(".")
    if not is_segment(name) or suffix != "json" or name == RECORD or is_sha256(stem):
        raise BadStore(f"{name!r} cannot stand beside a record: expected one like times.json")
    return f"{stage_folder(key)}/{name}"


def read_record(store: Store, key: str) -> StageRecord:
    """The record of the stage `key`. Raises FileNotFoundError, CorruptObject or BadStore."""
    path = f"{stage_folder(key)}/{RECORD}"
    load = partial(load_record, name=store.address(path), key=key)
    return store.read_intact(path, load, max_bytes=MAX_DOCUMENT_BYTES)


def read_side_file(store: Store, key: str, name: str) -> dict[str, Any] | None:
    """The body of the document `name` beside the commit, or None. Raises CorruptObject."""
    path = side_path(key, name)
    load = partial(load_document, name=store.address(path))
    try:
        return store.read_intact(path, load, max_bytes=MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        return None


def read_status(store: Store, key: str) -> StageStatus:
    """The status of the stage `key`. Raises StoreUnavailable; BadStore as `load_record`."""
    folder = stage_folder(key)
    path = f"{folder}/{RECORD}"
    try:
        sizes = store.listing(folder)
    except CorruptObject as error:
        return StageStatus(record=None, problem=str(error), damaged=(folder,))
    for taken in (folder, f"{folder}/{PARTIAL}"):
        if taken in sizes:
            problem = f"{store.address(taken)} is a file or a link, expected a folder"
            return StageStatus(record=None, problem=problem, damaged=(taken,))
    if path not in sizes:
        return StageStatus(record=None, problem=STARTED if sizes else None)
    try:
        record = read_record(store, key)
    except FileNotFoundError:
        return StageStatus(record=None, problem="its record has just been moved away")
    except CorruptObject as error:
        return StageStatus(record=None, problem=str(error), damaged=(path,))
    return _sized(store, record, sizes)


def _sized(store: Store, record: StageRecord, sizes: Mapping[str, int]) -> StageStatus:
    problems, damaged, absent = [], [], []
    for name, artifact in record.artifacts.items():
        path = artifact_path(record, name)
        size = sizes.get(path)
        if size is None:
            absent.append(name)
        elif size != artifact.size:
            problems.append(f"{name} has {size} bytes, its record names {artifact.size}")
            damaged.append(path)
    pruned: set[str] = set()
    if absent and side_path(record.key, PRUNED) in sizes:
        try:
            pruned = _pruned(store, record.key)
        except CorruptObject as error:
            problems.append(str(error))
            damaged.append(side_path(record.key, PRUNED))
    problems += [f"{name} is missing" for name in absent if name not in pruned]
    if problems:
        problem = f"{record.title}: {'; '.join(problems)}"
        return StageStatus(record=None, problem=problem, damaged=tuple(damaged))
    partial = f"{stage_folder(record.key)}/{PARTIAL}/"
    leftovers = tuple(path for path in sizes if path.startswith(partial))
    return StageStatus(record=record, pruned=tuple(absent), leftovers=leftovers)


def _pruned(store: Store, key: str) -> set[str]:
    body = read_side_file(store, key, PRUNED) or {}
    names = body.get("artifacts", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CorruptObject(f"{side_path(key, PRUNED)}: expected 'artifacts' to be a list of names")
    return set(names)
