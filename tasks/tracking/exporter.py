"""What MLflow gets of a finished stage, each point exactly once.

    runs/<name>/delivered/<MLflow run id>/<stage key>.<every n>.json     written after the delivery

A stage with such a marker is not delivered again. Without one it may have been delivered in part
before a kill: points that MLflow holds are left out. A point that is sent twice nevertheless stays
one row, because its timestamp comes from the stage's times, which are written once. No threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.stage_store.status import side_path
from epochal.data.tables.schemas import MAX_KEYS
from epochal.engine.config.mid_epoch import INSIDE
from epochal.tasks.computing.stage_times import TIMES, checked_times
from epochal.tasks.goodput.run import goodput_points, stage_goodput
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.session.session import EpochPart
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.tracking.connection import tracker_lock
from epochal.tasks.tracking.mlflow_run import MAX_ROWS, Row, TrackedRun
from epochal.tasks.tracking.names import mlflow_names

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N rows of the step metrics, U updates of the epoch

NON_FINITE_TAG = "epochal.non_finite"
_GROUP = "gradients/norm/"


@dataclass(frozen=True)
class LogEvery:
    """Which step metrics are delivered: every n-th update; with or without the groups' norms."""

    log_every_updates: int
    per_group: bool

    @property
    def suffix(self) -> str:
        """Its part of a marker's name."""
        return f"every-{self.log_every_updates}{'-groups' if self.per_group else ''}"


@dataclass(frozen=True)
class StageMetrics:
    """The points of one stage; `infinite`: those that MLflow cannot hold, as `key at update n`."""

    rows: tuple[Row, ...]
    infinite: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeliveryReport:
    """What is delivered by now, of what was asked for, and what could not be read."""

    delivered: frozenset[str]
    problems: tuple[str, ...] = field(default=())


def update_times_ms(times: Sequence[Sequence[int]], num_updates: int) -> npt.NDArray[np.int64]:
    """The time of each update of an epoch, int64 of shape (U,), in ms since 1970.

    times: pairs (updates done in the epoch, ms), at least one. Between two pairs the times are
    interpolated linearly; before the first and after the last they are constant. Integers only, so
    that the same pairs give the same times everywhere.
    """
    import numpy as np

    ordered = sorted({int(done): int(moment) for done, moment in times}.items())
    if not ordered:
        message = "an epoch's times need at least one pair"
        raise ValueError(message)
    done_A, moment_A = np.array(ordered, dtype=np.int64).T
    update_U = np.clip(np.arange(1, num_updates + 1, dtype=np.int64), done_A[0], done_A[-1])
    right_U = np.clip(np.searchsorted(done_A, update_U), 1, max(len(done_A) - 1, 1))
    if len(done_A) == 1:
        return np.full(num_updates, moment_A[0])
    left_U = right_U - 1
    gone_U, whole_U = update_U - done_A[left_U], done_A[right_U] - done_A[left_U]
    times_U: npt.NDArray[np.int64] = (
        moment_A[left_U] + (moment_A[right_U] - moment_A[left_U]) * gone_U // whole_U
    )
    return times_U


def step_metrics(
    columns: Mapping[str, Any],
    *,
    times: Sequence[Sequence[int]],
    updates: int,
    updates_done: int,
    log_every: LogEvery,
    whole: bool = True,
) -> StageMetrics:
    """The points of an epoch's updates, in order of the step.

    columns: `step`, `key`, `value`, each of shape (N,). updates: of this epoch; updates_done: by
    its end, over the whole run. The last update of a whole epoch is always among them.
    """
    import numpy as np

    step_N = np.asarray(columns["step"], dtype=np.int64)
    value_N = np.asarray(columns["value"], dtype=np.float64)
    key_N = np.asarray(columns["key"], dtype=object)
    wanted_N = step_N % log_every.log_every_updates == 0
    if whole:
        wanted_N |= step_N == updates_done
    # Metrics that are measured only at some updates are all sent; in a commit NaN stands between.
    inside_N = np.array([key.startswith(INSIDE) for key in key_N], dtype=bool)
    wanted_N = np.where(inside_N, ~np.isnan(value_N), wanted_N)
    if not log_every.per_group:
        wanted_N &= np.array([not key.startswith(_GROUP) for key in key_N], dtype=bool)
    chosen = np.flatnonzero(wanted_N)
    chosen = chosen[np.argsort(step_N[chosen], kind="stable")]
    times_U = update_times_ms(times, updates)
    time_N = times_U[np.clip(step_N - (updates_done - updates) - 1, 0, max(updates - 1, 0))]
    names = mlflow_names(key_N.tolist())
    rows, infinite = [], []
    for key, step, moment, value in zip(
        key_N[chosen].tolist(),
        step_N[chosen].tolist(),
        time_N[chosen].tolist(),
        value_N[chosen].tolist(),
        strict=True,
    ):
        if math.isinf(value):  # MLflow would store and draw it as 1.8e308
            infinite.append(f"{key} at update {step}")
        else:
            rows.append(Row(names[key], step, moment, value))
    return StageMetrics(tuple(rows), tuple(infinite))


def part_points(part: EpochPart, log_every: LogEvery) -> StageMetrics:
    """The points of an epoch at work, as far as it is committed."""
    import numpy as np

    names = list(part.metrics)
    updates = len(part.metrics[names[0]])
    steps_U = np.arange(1, updates + 1, dtype=np.int64) + part.updates_before
    return step_metrics(
        {
            "step": np.tile(steps_U, len(names)),
            "key": np.repeat(np.array(names, dtype=object), updates),
            "value": np.concatenate([part.metrics[name] for name in names]),
        },
        times=part.times,
        updates=updates,
        updates_done=part.updates_before + updates,
        log_every=log_every,
        whole=False,
    )


def epoch_metrics(record: StageRecord, *, timestamp_ms: int) -> tuple[Row, ...]:
    """The points of a whole stage: metrics of the epoch, at the step where it ends."""
    points = KINDS[record.stage].points
    assert points is not None, record.stage
    return _whole(points(record.values), record, timestamp_ms=timestamp_ms)


def _whole(
    values: Mapping[str, float | None], record: StageRecord, *, timestamp_ms: int
) -> tuple[Row, ...]:
    """Points at the step where the stage ends."""
    names = mlflow_names(values)
    return tuple(
        Row(names[name], int(record.values["updates_done"]), timestamp_ms, float(value))
        for name, value in values.items()
        if value is not None  # a record holds None for a value that was not finite
    )


def _check_steps(step_N: npt.NDArray[np.int64], record: StageRecord) -> None:
    done, updates = record.values["updates_done"], record.values["updates"]
    if len(step_N) and not done - updates < step_N.min() <= step_N.max() <= done:
        raise CorruptObject(
            f"its steps are {step_N.min()} to {step_N.max()}, and the record names {updates} "
            f"updates, the last of them {done}"
        )


class Exporter:
    """Delivers stages to one MLflow run, and marks in the store what was delivered."""

    def __init__(
        self, run: TrackedRun, *, stages: StageStore, name: str, log_every: LogEvery
    ) -> None:
        self._run = run
        self._stages = stages
        self._log_every = log_every
        self._folder = f"runs/{name}/delivered/{run.run_id}"
        self._marked = {path.rpartition("/")[2] for path in stages.store.listing(self._folder)}

    def is_delivered(self, record: StageRecord) -> bool:
        """Whether nothing of the stage is left to deliver."""
        return KINDS[record.stage].points is None or self._marker(record) in self._marked

    def deliver(self, records: Sequence[StageRecord]) -> DeliveryReport:
        """Delivers the stages that are not, several in one request.

        A stage whose table is damaged is left out and reported in `problems`. Raises what MLflow
        and the store raise; stages marked before that stay marked.
        """
        problems: list[str] = []
        waiting: list[tuple[StageRecord, StageMetrics]] = []
        for record in records:
            if self.is_delivered(record):
                continue
            try:
                waiting.append((record, self._metrics(record)))
            except CorruptObject as error:
                problems.append(str(error))
            if sum(len(metrics.rows) for _, metrics in waiting) >= MAX_ROWS:
                self._send(waiting)
                waiting = []
        self._send(waiting)
        done = frozenset(record.key for record in records if self.is_delivered(record))
        return DeliveryReport(done, tuple(problems))

    def deliver_part(self, part: EpochPart) -> None:
        """Delivers what is committed of an epoch at work. Raises what MLflow raises."""
        rows = part_points(part, self._log_every).rows
        with tracker_lock():
            self._run.refresh()
            self._run.log_rows([row for row in rows if self._run.is_new(row)])

    def _send(self, waiting: Sequence[tuple[StageRecord, StageMetrics]]) -> None:
        if not waiting:
            return
        with tracker_lock():
            self._run.refresh()
            rows = [row for _, metrics in waiting for row in metrics.rows]
            self._run.log_rows([row for row in rows if not self._run.holds(row)])
        infinite = [text for _, metrics in waiting for text in metrics.infinite]
        if infinite:
            self._run.set_tags({NON_FINITE_TAG: f"{len(infinite)}, first: {infinite[0]}"})
        for record, metrics in waiting:
            marker = self._marker(record)
            body = {"stage": record.stage, "epoch": record.epoch, "points": len(metrics.rows)}
            with suppress(FileExistsError):  # another process has delivered the same
                self._stages.store.put_new(f"{self._folder}/{marker}", dump_document(body))
            self._marked.add(marker)

    def _metrics(self, record: StageRecord) -> StageMetrics:
        from epochal.data.tables.writing import UPDATES, read_table

        times = self._times(record.key)
        moment = max(int(moment) for _, moment in times)
        whole = epoch_metrics(record, timestamp_ms=moment) + self._goodput(record, moment)
        if "updates" not in record.artifacts:
            return StageMetrics(whole)
        with self._stages.fetch_artifact(record, "updates") as path:
            most = record.values["updates"] * MAX_KEYS
            table = read_table(path, schema=UPDATES, max_rows=most)
            _check_steps(table.columns["step"], record)
        steps = step_metrics(
            table.columns,
            times=times,
            updates=record.values["updates"],
            updates_done=record.values["updates_done"],
            log_every=self._log_every,
        )
        return StageMetrics((*steps.rows, *whole), steps.infinite)

    def _goodput(self, record: StageRecord, timestamp_ms: int) -> tuple[Row, ...]:
        """What the stage has cost. Nothing takes its place where it is lost, or never was."""
        try:
            totals = stage_goodput(self._stages, record.key)
        except CorruptObject as error:
            self._stages.store.set_aside(side_path(record.key, GOODPUT), str(error))
            return ()
        if totals is None:
            return ()
        return _whole(goodput_points(record, totals), record, timestamp_ms=timestamp_ms)

    def _times(self, key: str) -> list[list[int]]:
        try:
            times = self._stages.read_side_file(key, TIMES)
            if times is not None:
                return checked_times(times.get("anchors"))
        except CorruptObject as error:
            self._stages.store.set_aside(side_path(key, TIMES), str(error))
        # The times are lost: the moment of this delivery takes their place from now on.
        now_ms = int(time.time() * 1000)
        times = self._stages.put_side_file(key, TIMES, {"anchors": [[0, now_ms]]})
        return checked_times(times.get("anchors"))

    def _marker(self, record: StageRecord) -> str:
        suffix = self._log_every.suffix if "updates" in record.artifacts else "all"
        return f"{record.key}.{suffix}.json"
