"""Looks up which stages are done, and checks that each record is one of its stage.

A record's own digest shows that its bytes were not changed. Whether it belongs to this stage, with
the artifacts and numbers that other stages use, is checked here. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from pydantic import TypeAdapter, ValidationError

from epochal.data.stage_store.stages import (
    RECORD,
    StageRecord,
    StageStatus,
    StageStore,
    stage_folder,
)
from epochal.tasks.planning.stage import Stage
from epochal.tasks.stages.kind import RecordValues
from epochal.tasks.stages.registry import KINDS


def look_up(
    stage_store: StageStore, keys: Iterable[str], *, stages: Iterable[Stage] = ()
) -> dict[str, StageStatus]:
    """The status of each key; a record that cannot belong to its stage counts as damaged.

    stages: the stages that have these keys, as far as they are known. Changes nothing.
    """
    expected = {stage.key: (stage.kind, stage.epoch) for stage in stages if stage.key is not None}
    statuses = stage_store.lookup(list(keys))
    return {key: _judged(key, status, expected.get(key)) for key, status in statuses.items()}


def records_of(statuses: Mapping[str, StageStatus]) -> dict[str, StageRecord]:
    """The records of the stages that are done."""
    return {key: status.record for key, status in statuses.items() if status.record is not None}


def _judged(key: str, status: StageStatus, expected: tuple[str, int | None] | None) -> StageStatus:
    problem = None if status.record is None else _problem(status.record, expected)
    if status.record is None or problem is None:
        return status
    path = f"{stage_folder(key)}/{RECORD}"
    return StageStatus(record=None, problem=f"{path}: {problem}", damaged=(path,))


def _problem(record: StageRecord, expected: tuple[str, int | None] | None) -> str | None:
    """Why this record cannot be used, or None."""
    own = (record.stage, record.epoch)
    if expected is not None and own != expected:
        return f"it is of {own}, expected one of {expected}"
    kind = KINDS.get(record.stage)
    if kind is None:
        return f"there is no stage {record.stage!r}"
    if (record.epoch is not None) != (kind.when == "epoch"):
        return f"{record.stage} with the epoch {record.epoch}"
    for name, suffix in kind.artifacts.items():
        artifact = record.artifacts.get(name)
        if artifact is None or not artifact.file.endswith(f".{suffix}"):
            return f"it has no artifact {name} of kind {suffix}"
    try:
        _values(kind.values).validate_python(record.values)
    except ValidationError as error:
        return "; ".join(
            f"values.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
    return None


@cache
def _values(kind: type[RecordValues]) -> TypeAdapter[RecordValues]:
    return TypeAdapter(kind)
