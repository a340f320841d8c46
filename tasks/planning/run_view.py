"""One view of a run: its stages, the records of those that are done, and what follows from both.

Commands, the run at work, the report and the tracker ask it instead of passing stages and records
side by side. It reads nothing: its maker passes the records in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epochal.data.stage_store.records import StageRecord
from epochal.engine.config.numerics import EMA, MetricsConfig
from epochal.tasks.config.parts import rule
from epochal.tasks.config.run import RunConfig, flatten
from epochal.tasks.planning.early_stopping import last_epoch
from epochal.tasks.planning.stage import Stage

PACKAGE = "package "
"""Before the name of an installed package that a target's code imports, in an environment."""
VERSIONS = "versions"
"""In an environment: the packages that make every stage's bytes."""


def differences(environments: Iterable[Mapping[str, Any]], now: Mapping[str, Any]) -> list[str]:
    """`torch: 2.6 → 2.7` for each name that both `now` and one of the others have, once.

    A name that one of them lacks is no difference: packages are noted for the targets of a stage.
    """
    found: dict[str, None] = {}
    present = dict(flatten(now))
    for environment in environments:
        before = dict(flatten(environment))
        for name in sorted(before.keys() & present.keys()):
            if before[name] != present[name]:
                shown = name.removeprefix(PACKAGE).removeprefix(f"{VERSIONS}.")
                found[f"{shown}: {before[name]} → {present[name]}"] = None
    return list(found)


def _have_one_value(environments: Iterable[Mapping[str, Any]]) -> bool:
    """Whether no name has two values in them."""
    seen: dict[str, Any] = {}
    return all(
        seen.setdefault(name, value) == value
        for environment in environments
        for name, value in environment.items()
    )


def of_ema(metrics: MetricsConfig) -> MetricsConfig:
    """The same for the average of the weights."""
    metric = EMA + metrics.best_metric.removeprefix(EMA)
    return metrics.model_copy(update={"best": metric, "best_mode": metrics.best_direction})


@dataclass(frozen=True)
class BestEpoch:
    """The epoch whose metric is best, the earliest of equals."""

    epoch: int
    metric: str
    value: float

    @property
    def artifact(self) -> str:
        """The artifact of its train stage whose weights the metric measured."""
        return "ema" if self.metric.startswith(EMA) else "model"


@dataclass(frozen=True)
class RunView:
    """A run as its records have it now.

    stages: all that were planned, in the order in which they run. records: key → record of each
    stage that is done; a run at work adds to it.
    """

    config: RunConfig
    stages: Sequence[Stage]
    records: dict[str, StageRecord]

    def stage(self, kind: str, epoch: int | None) -> Stage:
        """The stage of that kind and epoch. Raises KeyError."""
        for stage in self.stages:
            if (stage.kind, stage.epoch) == (kind, epoch):
                return stage
        raise KeyError((kind, epoch))

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage has a record."""
        return stage.key is not None and stage.key in self.records

    def record_of(self, stage: Stage) -> StageRecord:
        """The record of a stage that is done."""
        return self.records[stage.known_key]

    def record(self, kind: str, epoch: int | None) -> StageRecord | None:
        """The record of that stage, or None if it is not done or there is no such stage."""
        for stage in self.stages:
            if (stage.kind, stage.epoch) == (kind, epoch):
                return self.records.get(stage.key or "")
        return None

    def of_kind(self, kind: str) -> Iterator[tuple[Stage, StageRecord]]:
        """The stages of that kind that are done, with their records, in order."""
        for stage in self.stages:
            if stage.kind == kind and (record := self.records.get(stage.key or "")) is not None:
                yield stage, record

    def newest_epoch(self, kind: str) -> int | None:
        """The last epoch that has a stage of this kind done, or None."""
        return max((stage.number for stage, _ in self.of_kind(kind)), default=None)

    @property
    def stopped_after(self) -> int | None:
        """The epoch that early stopping ends the run with, or None.

        Epochs are looked at in order, up to the first whose validation is not done. A run that has
        reached its last epoch was not stopped.
        """
        stopping = self.config.early_stopping
        if stopping is None:
            return None
        metric, mode = rule(stopping, self.config.metrics)
        values: list[float | None] = []
        for stage in self.stages:
            if stage.kind == "validate":
                record = self.records.get(stage.key or "")
                if record is None:
                    break
                values.append(record.values["metrics"].get(metric))
        last = last_epoch(stopping, values, mode=mode)
        return None if last is None or last >= self.config.epochs - 1 else last

    @property
    def needed(self) -> tuple[Stage, ...]:
        """The stages that belong to the run: none after the epoch that it was stopped with."""
        last = self.stopped_after
        if last is None:
            return tuple(self.stages)
        return tuple(stage for stage in self.stages if stage.epoch is None or stage.epoch <= last)

    @property
    def is_whole(self) -> bool:
        """Whether every stage that belongs to the run is done."""
        return all(self.is_done(stage) for stage in self.needed)

    def validated(self, metrics: MetricsConfig | None = None) -> list[BestEpoch]:
        """The epochs that were validated with a finite value, best first, the earlier of equals.

        metrics: says which metric is meant and which way is better; the run's own if None.
        """
        asked = self.config.metrics if metrics is None else metrics
        metric, sign = asked.best_metric, 1 if asked.best_direction == "min" else -1
        measured = [
            BestEpoch(epoch=stage.number, metric=metric, value=value)
            for stage, record in self._of_run("validate")
            if (value := record.values["metrics"].get(metric)) is not None
        ]
        return sorted(measured, key=lambda best: (sign * best.value, best.epoch))

    @property
    def best(self) -> BestEpoch | None:
        """The best validated epoch, or None if none was validated with a finite value."""
        return next(iter(self.validated()), None)

    def why_no_best(self, metrics: MetricsConfig | None = None) -> str:
        """Why there is no best epoch; arguments as those of `validated`."""
        metric = (self.config.metrics if metrics is None else metrics).best_metric
        records = [record for _, record in self._of_run("validate")]
        if not records:
            return "it has no validated epoch yet"
        epochs = "its epoch" if len(records) == 1 else f"all its {len(records)} epochs"
        if not any(metric in record.values["metrics"] for record in records):
            return f"{metric!r} was not measured in {epochs} validated"
        return (
            f"{metric!r} is NaN or infinite in {epochs} validated, so none of them is best; name "
            "an epoch by its number, or another metric as metrics.best"
        )

    @property
    def metrics_of_ema(self) -> MetricsConfig:
        """The metric config that picks the best epoch of the average of the weights."""
        return of_ema(self.config.metrics)

    @property
    def best_of_ema(self) -> BestEpoch | None:
        """The best epoch of the average of the weights, or None where there is no average."""
        if self.config.ema is None:
            return None
        return next(iter(self.validated(self.metrics_of_ema)), None)

    @property
    def weights_sha256(self) -> str | None:
        """Digest of the last epoch's model artifact, or None while it is not trained."""
        last = [stage for stage in self.needed if stage.kind == "train"][-1]
        record = self.records.get(last.key or "")
        return None if record is None else record.artifacts["model"].sha256

    @property
    def is_bitwise(self) -> bool:
        """Whether all stages ran in one environment, each on its parents' present bytes."""
        done = [(stage, self.record_of(stage)) for stage in self.needed if self.is_done(stage)]
        if not _have_one_value(record.environment for _, record in done):
            return False
        return not any(
            consumed_others(stage, record.consumed, self.records) for stage, record in done
        )

    def _of_run(self, kind: str) -> Iterator[tuple[Stage, StageRecord]]:
        last = self.stopped_after
        for stage, record in self.of_kind(kind):
            if last is None or stage.epoch is None or stage.epoch <= last:
                yield stage, record


def consumed_others(
    stage: Stage, consumed: Mapping[str, str], records: Mapping[str, StageRecord]
) -> bool:
    """Whether the stage was computed from bytes that its parents do not have any more.

    consumed: `role/artifact` → sha256 of what it was computed from.
    """
    for name, sha256 in consumed.items():
        role, _, artifact = name.partition("/")
        parent = stage.parents.get(role)
        present = records.get(parent.known_key) if parent is not None else None
        if present is None or artifact not in present.artifacts:
            continue
        if present.artifacts[artifact].sha256 != sha256:
            return True
    return False
