"""What a kind of stage is: everything that planning, running, delivery and tables need of it.

A kind is declared once, in the file that computes it; `tasks.stages.registry` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from epochal.data.hashing import digest
from epochal.data.stage_store.records import StageRecord
from epochal.tasks.computing.work import Computed, Order, Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.stopwatch import Cause
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.session.session import Session

Count = Annotated[int, Field(ge=0, le=1 << 53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

TENSORS, TABLE, DOCUMENT = "safetensors", "parquet", "json"
"""Suffixes of artifacts."""

Values = Mapping[str, Any]
"""The values of a record of the kind, as its model of them has checked."""


class RecordValues(BaseModel):
    """Values of a record; a later version may have more of them."""

    model_config = ConfigDict(strict=True, extra="allow")


@dataclass(frozen=True)
class Planned:
    """A stage that belongs into the list.

    inputs: section → what of it changes this stage; None for data that was not yet read.
    parents: role → the stage that is consumed.
    """

    inputs: dict[str, Any]
    parents: dict[str, Stage] = field(default_factory=dict)


def _nothing(values: Values) -> dict[str, float | None]:  # noqa: ARG001 - as a kind calls it
    return {}


def _no_line(stage: Stage, record: StageRecord) -> list[str]:  # noqa: ARG001 - as a kind calls it
    return []


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """One kind of stage.

    name: in keys, records and on the command line. title: of its Prefect task.
    version: raised by hand when the stage's code changes its numbers; part of the key.
    when: once before the epochs, in each epoch, or once after the last.
    field: of the config, that the stage is there for.
    plan: the stage of this kind that comes next in the list, or None if none does.
    values, artifacts: what a record must have; artifact → suffix of its file.
    loads: role of a parent → the parent's artifacts that the stage reads, where it has them.
    run: has the stage computed and commits it; takes `role/artifact` → sha256 of what it loads.
    compute: what a trainer does of it; None: nothing.
    metrics: values of a record → its numbers under their names in `--json`.
    points: the same under their names in MLflow, at the update where the stage ends; None: MLflow
    gets nothing of the stage.
    line: what is shown of a stage that has ended.
    cause: what its time counts for, where its body says nothing else.
    shared: whether all processes of a group compute it, each its part.
    """

    name: str
    version: int
    when: Literal["start", "epoch", "end"]
    plan: Callable[[Listing, int | None], Planned | None]
    values: type[RecordValues]
    artifacts: Mapping[str, str]
    loads: Callable[[Stage, str, Mapping[str, StageRecord]], Iterable[str]]
    run: Callable[[Session, Stage, Mapping[str, str]], StageRecord]
    compute: Callable[[Work, Order], Computed] | None = None
    field: str = "epochs"
    title: str = ""
    metrics: Callable[[Values], dict[str, float | None]] = _nothing
    points: Callable[[Values], dict[str, float | None]] | None = None
    line: Callable[[Stage, StageRecord], list[str]] = _no_line
    cause: Cause = "orchestration"
    shared: bool = False


class Listing:
    """The list of a run's stages while it is made: from it a kind tells its next stage."""

    def __init__(self, config: RunConfig, run_inputs: RunInputs) -> None:
        self.config = config
        self.run_inputs = run_inputs
        self.stages: list[Stage] = []
        self._newest: dict[str, Stage] = {}

    def newest(self, kind: str, *, epoch: int | None = None) -> Stage | None:
        """The last stage of that kind so far; with `epoch` only one of that epoch."""
        stage = self._newest.get(kind)
        return stage if epoch is None or (stage is not None and stage.epoch == epoch) else None

    @property
    def checkpoint(self) -> Stage:
        """The stage that holds the weights now."""
        return self._newest.get("train") or self._newest["initialise"]

    def add(self, kind: StageKind, epoch: int | None) -> None:
        """Lists the stage of `kind` that comes now, if one does."""
        planned = kind.plan(self, epoch)
        if planned is None:
            return
        inputs, parents = planned.inputs, planned.parents
        unread = any(value is None for value in inputs.values())
        key = None
        if not unread and all(parent.key is not None for parent in parents.values()):
            keys = {role: parent.key for role, parent in parents.items()}
            key = digest(f"stage/{kind.name}", [kind.version, epoch, inputs, keys])
        stage = Stage(kind=kind.name, epoch=epoch, key=key, inputs=inputs, parents=parents)
        self.stages.append(stage)
        self._newest[kind.name] = stage


def shown(value: float | None) -> str:
    """A number as people read it; a dash for none."""
    return "–" if value is None else f"{value:.4g}"
