"""The points of a run's curves: what a tracker gets of a finished stage, or of an epoch at work.

A stage's points follow from its record, its tables, its times and the stages before it alone, so
that they are the same however often they are computed, by whatever command. Knows no tracker.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.stage_store.status import side_path
from epochal.data.tables.schemas import MAX_KEYS
from epochal.engine.config.mid_epoch import INSIDE
from epochal.engine.config.numerics import EMA
from epochal.tasks.computing.stage_times import TIMES, checked_times
from epochal.tasks.goodput.run import goodput_points, stage_goodput
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.session.session import EpochPart
from epochal.tasks.stages.registry import KINDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N rows of the step metrics, U updates of the epoch

FULL_UPDATES = 1024
"""Up to this update of a run every one is sent."""
FULL_BUCKET = 4
"""Updates of a bucket behind it; twice as many with each doubling of the updates."""
RARE = frozenset({
    "gradients/clip_rate",
    "gradients/skipped",
    "gradients/skipped_in_epoch",
    "gradients/spikes",
    "sampling/label_noise",
    "sampling/suspects",
})  # fmt: skip
"""Counts and shares of what seldom happens: a zero is left out, where a curve would be flat."""
OVERVIEW = "Overview"
"""MLflow sorts the sections of its charts by name, capitals first: what one looks at first."""
_GROUP = "gradients/norm/"
_NUM_BUCKETS = FULL_UPDATES // FULL_BUCKET * 2  # their numbers are below it, at every width

Direction = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Row:
    """One point of a curve. step: updates done, from 1. timestamp_ms: since 1970."""

    key: str
    step: int
    timestamp_ms: int
    value: float


@dataclass(frozen=True)
class LogEvery:
    """Which step metrics are sent: every n-th update; with or without the groups' norms.

    thinned: of many updates the least and the greatest of each bucket (`kept_rows`).
    """

    log_every_updates: int
    per_group: bool
    thinned: bool = True

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Its part of a marker's name, and before it those that hold more."""
        chosen = f"{self.log_every_updates}{'-groups' if self.per_group else ''}"
        return (f"every-{chosen}", *([f"thinned-{chosen}"] if self.thinned else []))


@dataclass(frozen=True)
class StageMetrics:
    """The points of a stage: `steps` of its updates, `whole` at the update where it ends.

    infinite: those that MLflow cannot hold, as `key at update n`.
    """

    steps: tuple[Row, ...] = ()
    whole: tuple[Row, ...] = ()
    infinite: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.steps) + len(self.whole)


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


def buckets(step_N: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The bucket of each update, and the last update of that bucket; int64 of shape (N,).

    step_N: from 1. Up to 1,024 each update is a bucket of its own. Behind it a bucket has 4
    updates, and twice as many with each doubling: 256 buckets from 1,024 to 2,048, 256 from there
    to 4,096, and so on. So which updates stand together follows from their numbers alone, however
    long the run will be, and two points of each make some thousand of a run of any length.
    """
    import numpy as np

    whole_N = (step_N - 1) // FULL_UPDATES
    level_N = np.frexp(whole_N.astype(np.float64))[1].astype(np.int64)  # 0: below FULL_UPDATES
    width_N = np.where(level_N == 0, 1, FULL_BUCKET << np.maximum(level_N - 1, 0))
    number_N = (step_N - 1) // width_N
    bucket_N = np.where(level_N == 0, number_N, FULL_UPDATES + level_N * _NUM_BUCKETS + number_N)
    return bucket_N, (number_N + 1) * width_N


def kept_rows(
    step_N: npt.NDArray[np.int64], name_N: npt.NDArray[np.int64], value_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Which rows stay of each metric: the least and the greatest value of each bucket, or NaN.

    name_N: the metric of each row, as a number. Of equal values the earliest is least, the latest
    greatest. A bucket is cut where the given rows end, so an epoch's points are its own.
    """
    import numpy as np

    kept_N = np.zeros(len(step_N), dtype=bool)
    if not len(step_N):
        return kept_N
    bucket_N, _ = buckets(step_N)
    order_N = np.lexsort((step_N, value_N, bucket_N, name_N))  # NaN comes last
    bucket_N, name_N, value_N = bucket_N[order_N], name_N[order_N], value_N[order_N]
    other_N = (np.diff(bucket_N) != 0) | (np.diff(name_N) != 0)
    first_N = np.concatenate([[True], other_N])
    last_N = np.concatenate([other_N, [True]])
    # The greatest number stands before the NaNs, if there are any.
    before_nan_N = np.concatenate([np.isnan(value_N[1:]) & ~np.isnan(value_N[:-1]), [False]])
    kept_N[order_N[first_N | last_N | (before_nan_N & ~last_N)]] = True
    return kept_N


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
    its end, over the whole run. Of an epoch that is not whole the last bucket waits until it is
    full. Without thinning the last update of a whole epoch is always among them.
    """
    import numpy as np
    import pyarrow as pa

    step_N = np.asarray(columns["step"], dtype=np.int64)
    value_N = np.asarray(columns["value"], dtype=np.float64)
    named = pa.array(np.asarray(columns["key"], dtype=object), pa.string()).dictionary_encode()
    keys, name_N = named.dictionary.to_pylist(), named.indices.to_numpy().astype(np.int64)
    wanted_N = step_N % log_every.log_every_updates == 0
    if whole:
        wanted_N |= step_N == updates_done
    # Metrics that are measured only at some updates are all sent; in a commit NaN stands between.
    inside_N = np.array([key.startswith(INSIDE) for key in keys], dtype=bool)[name_N]
    wanted_N = np.where(inside_N, ~np.isnan(value_N), wanted_N)
    rare_N = np.array([key in RARE for key in keys], dtype=bool)[name_N]
    wanted_N &= ~(rare_N & (value_N == 0))
    if not log_every.per_group:
        wanted_N &= ~np.array([key.startswith(_GROUP) for key in keys], dtype=bool)[name_N]
    infinite_N = wanted_N & np.isinf(value_N)  # MLflow would store and draw it as 1.8e308
    chosen = np.flatnonzero(wanted_N & ~infinite_N)
    if log_every.thinned:
        if not whole:
            chosen = chosen[buckets(step_N[chosen])[1] <= updates_done]
        chosen = chosen[kept_rows(step_N[chosen], name_N[chosen], value_N[chosen])]
    chosen = chosen[np.argsort(step_N[chosen], kind="stable")]
    times_U = update_times_ms(times, updates)
    time_N = times_U[np.clip(step_N - (updates_done - updates) - 1, 0, max(updates - 1, 0))]
    rows = tuple(
        Row(keys[name], step, moment, value)
        for name, step, moment, value in zip(
            name_N[chosen].tolist(),
            step_N[chosen].tolist(),
            time_N[chosen].tolist(),
            value_N[chosen].tolist(),
            strict=True,
        )
    )
    infinite = tuple(
        f"{keys[name_N[row]]} at update {step_N[row]}" for row in np.flatnonzero(infinite_N)
    )
    return StageMetrics(steps=rows, infinite=infinite)


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
    return tuple(
        Row(name, int(record.values["updates_done"]), timestamp_ms, float(value))
        for name, value in values.items()
        if value is not None  # a record holds None for a value that was not finite
        and not (name in RARE and value == 0)
    )


def _overview(record: StageRecord) -> dict[str, float | None]:
    """What is looked at first of an epoch, once more, in a section that MLflow shows first."""
    values = record.values
    if record.stage == "train":
        return {"epoch": record.epoch, f"{OVERVIEW}/train_loss": values["loss"]}
    if record.stage == "validate":
        measured = values["metrics"].items()
        return {f"{OVERVIEW}/validation_{name}": value for name, value in measured}
    return {}


class Standing:
    """The best epoch so far, at each validation. measures: metric, and which way is better."""

    def __init__(
        self, history: Mapping[str, StageRecord], measures: Sequence[tuple[str, Direction]]
    ) -> None:
        self._history = history
        self._measures = tuple(measures)
        self._looked = 0
        self._best: dict[str, tuple[float, int]] = {}
        self._at: dict[str, dict[str, float | None]] = {}

    def points(self, record: StageRecord) -> dict[str, float | None]:
        """`best/<metric>` and `best/epoch` by then. Nothing of any other stage."""
        for other in islice(self._history.values(), self._looked, None):
            self._looked += 1
            if other.stage == "validate":
                self._look(other)
        return self._at.get(record.key, {})

    def _look(self, record: StageRecord) -> None:
        points: dict[str, float | None] = {}
        for metric, direction in self._measures:
            value, best = record.values["metrics"].get(metric), self._best.get(metric)
            if value is not None and (
                best is None or (value < best[0] if direction == "min" else value > best[0])
            ):
                best = self._best[metric] = (value, record.epoch or 0)
            if best is not None:
                ema = EMA if metric.startswith(EMA) else ""
                points[f"best/{metric}"], points[f"best/{ema}epoch"] = best
        self._at[record.key] = points


def _check_steps(step_N: npt.NDArray[np.int64], record: StageRecord) -> None:
    done, updates = record.values["updates_done"], record.values["updates"]
    if len(step_N) and not done - updates < step_N.min() <= step_N.max() <= done:
        raise CorruptObject(
            f"its steps are {step_N.min()} to {step_N.max()}, and the record names {updates} "
            f"updates, the last of them {done}"
        )


class PointReader:
    """Reads the points of finished stages from the store.

    history: key → record of the run's stages, in their order, as they come to be known.
    """

    def __init__(
        self,
        stages: StageStore,
        *,
        log_every: LogEvery,
        history: Mapping[str, StageRecord],
        measures: Sequence[tuple[str, Direction]] = (),
    ) -> None:
        self._stages = stages
        self._log_every = log_every
        self._standing = Standing(history, measures)

    def stage_points(self, record: StageRecord) -> StageMetrics:
        """All points of a stage. Raises CorruptObject, and what the store raises."""
        from epochal.data.tables.writing import UPDATES, read_table

        times = self._times(record.key)
        moment = max(int(moment) for _, moment in times)
        more = {**_overview(record), **self._standing.points(record), **self._goodput(record)}
        whole = (
            *epoch_metrics(record, timestamp_ms=moment),
            *_whole(more, record, timestamp_ms=moment),
        )
        if "updates" not in record.artifacts:
            return StageMetrics(whole=whole)
        with self._stages.fetch_artifact(record, "updates") as path:
            most = record.values["updates"] * MAX_KEYS
            table = read_table(path, schema=UPDATES, max_rows=most)
            _check_steps(table.columns["step"], record)
        found = step_metrics(
            table.columns,
            times=times,
            updates=record.values["updates"],
            updates_done=record.values["updates_done"],
            log_every=self._log_every,
        )
        return StageMetrics(found.steps, whole, found.infinite)

    def part_points(self, part: EpochPart) -> StageMetrics:
        """The points of an epoch at work."""
        return part_points(part, self._log_every)

    def _goodput(self, record: StageRecord) -> dict[str, float | None]:
        """What the stage has cost. Nothing takes its place where it is lost, or never was."""
        try:
            totals = stage_goodput(self._stages, record.key)
        except CorruptObject as error:
            self._stages.store.set_aside(side_path(record.key, GOODPUT), str(error))
            return {}
        if totals is None:
            return {}
        return goodput_points(record, totals)

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
