"""What each kind of stage must have recorded, asked of each record that a store gives.

A record's own digest says that it was not changed; whether it is a record of this stage, with the
artifacts and numbers that others go on to use, is asked here. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from epochal.data.stage_store.stages import (
    RECORD,
    StageRecord,
    StageStatus,
    StageStore,
    stage_folder,
)
from epochal.tasks.planning.scoring import SCORE, SCORES
from epochal.tasks.planning.stage import Stage

_Count = Annotated[int, Field(ge=0, le=1 << 53)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Values(BaseModel):
    """Values of a record; a later version may have more of them."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Initialised(_Values):
    parameters: _Count


class _Trained(_Values):
    samples: _Count
    updates: _Count
    updates_done: _Count
    loss: _Number | None
    accuracy: _Number | None
    gradient_norm: _Number | None


class _Validated(_Values):
    samples: _Count
    updates_done: _Count
    metrics: dict[str, _Number | None]


class _Averaged(_Values):
    epochs: Annotated[list[_Count], Field(min_length=1)]
    updates_done: _Count


class _Scored(_Values):
    samples: _Count
    extra_forwards: _Count
    loss: _Number | None
    accuracy: _Number | None
    updates_done: _Count


class _Mined(_Values):
    kept: _Count
    samples: _Count
    kept_fraction: _Share
    full: bool
    label_noise: _Share | None
    suspects: _Count
    updates_done: _Count


@dataclass(frozen=True)
class _Kind:
    """What a record of one kind has. artifacts: name → suffix of the file."""

    values: type[_Values]
    artifacts: Mapping[str, str]
    in_epoch: bool = True


_TENSORS, _TABLE = "safetensors", "parquet"
_KINDS = {
    "initialise": _Kind(_Initialised, {"model": _TENSORS}, in_epoch=False),
    "train": _Kind(
        _Trained,
        {
            "model": _TENSORS,
            "optimizer": _TENSORS,
            "state": "json",
            "observations": _TABLE,
            "updates": _TABLE,
        },
    ),
    "validate": _Kind(_Validated, {}),
    SCORE: _Kind(_Scored, {SCORES: _TABLE}),
    "mine": _Kind(_Mined, {"samples": _TABLE}),
    "average": _Kind(_Averaged, {"model": _TENSORS}, in_epoch=False),
    "validate_average": _Kind(_Validated, {}, in_epoch=False),
}


def look_up(
    stage_store: StageStore, keys: Iterable[str], *, stages: Iterable[Stage] = ()
) -> dict[str, StageStatus]:
    """The status of each key; a record that cannot be of its stage is damage.

    stages: what the keys stand for, as far as it is known. Changes nothing.
    """
    expected = {stage.key: (stage.kind, stage.epoch) for stage in stages if stage.key is not None}
    found = stage_store.lookup(list(keys))
    return {key: _judged(key, status, expected.get(key)) for key, status in found.items()}


def _judged(key: str, status: StageStatus, expected: tuple[str, int | None] | None) -> StageStatus:
    problem = None if status.record is None else _problem(status.record, expected)
    if status.record is None or problem is None:
        return status
    path = f"{stage_folder(key)}/{RECORD}"
    return StageStatus(record=None, problem=f"{path}: {problem}", damaged=(path,))


def _problem(record: StageRecord, expected: tuple[str, int | None] | None) -> str | None:
    """Why nobody should go on from this record, or None."""
    own = (record.stage, record.epoch)
    if expected is not None and own != expected:
        return f"it is of {own}, expected one of {expected}"
    kind = _KINDS.get(record.stage)
    if kind is None:
        return f"there is no stage {record.stage!r}"
    if (record.epoch is not None) != kind.in_epoch:
        return f"{record.stage} with the epoch {record.epoch}"
    for name, suffix in kind.artifacts.items():
        artifact = record.artifacts.get(name)
        if artifact is None or not artifact.file.endswith(f".{suffix}"):
            return f"it has no artifact {name} of kind {suffix}"
    try:
        _values(kind.values).validate_python(record.values)
    except ValidationError as error:
        return "; ".join(
            f"values.{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        )
    return None


@cache
def _values(kind: type[_Values]) -> TypeAdapter[_Values]:
    return TypeAdapter(kind)


def number(value: float) -> float | None:
    """`value` as a record holds it: None where it is not finite."""
    return float(value) if math.isfinite(value) else None
