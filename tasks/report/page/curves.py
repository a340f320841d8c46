"""The curves of a run out of its store, of a bounded number of points, and where those lie.

A point lies at an update; `Progress` says which epoch, sample and second that was. Nothing is asked
of MLflow. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.errors import CorruptObject
from epochal.data.tables.schemas import MAX_KEYS, UPDATES
from epochal.tasks.computing.stage_times import TIMES, checked_times
from epochal.tasks.goodput.run import RunGoodput
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.report.page.charts.curve import AXES, Curve
from epochal.tasks.report.tables import RunTables
from epochal.tasks.runs.open_epoch import OpenEpoch
from epochal.tasks.runs.summary import EpochRow

if TYPE_CHECKING:
    import numpy.typing as npt

    from epochal.data.stage_store.stages import StageStore

# U updates of an epoch, N rows of a table, P points of a curve, K knots of an axis

MAX_POINTS = 2000
"""Points of a curve; more values share points, which keep the lowest and the highest of them."""
MAX_GROUP_POINTS = 240
"""Points of a curve of which there is one for each group of parameters: columns of a heat map."""
MAX_CURVES = 128
GROUP = "gradients/norm/"


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a run was at each update: between knots the axes are straight lines.

    update_K, epoch_K, samples_K, time_K: float64 of shape (K,), rising. time_K: seconds of work,
    without those that lie between two commands; all NaN where a store has no times. ends: epoch →
    updates done at its end. first_ms, last_ms: when the work began and ended, since 1970.
    """

    update_K: npt.NDArray[np.float64]
    epoch_K: npt.NDArray[np.float64]
    samples_K: npt.NDArray[np.float64]
    time_K: npt.NDArray[np.float64]
    ends: Mapping[int, int]
    first_ms: int | None = None
    last_ms: int | None = None

    def at(self, updates_P: Sequence[float]) -> dict[str, npt.NDArray[np.float64]]:
        """Where points lie on each of `AXES`, float64 of shape (P,)."""
        update_P = np.asarray(updates_P, dtype=np.float64)
        knots = {"epoch": self.epoch_K, "time": self.time_K, "samples": self.samples_K}
        return {
            "update": update_P,
            **{axis: self._on(known_K, update_P) for axis, known_K in knots.items()},
        }

    def starts(self, epochs_P: Sequence[int]) -> dict[str, npt.NDArray[np.float64]]:
        """Where epochs begin, on each axis; one that is not trained yet lies as far as its like."""
        epoch_P = np.asarray(epochs_P, dtype=np.float64)
        update_P = np.interp(epoch_P, self.epoch_K, self.update_K)
        beyond_P = np.maximum(epoch_P - self.epoch_K[-1], 0.0)
        last = self.at(self.update_K[-1:].tolist())
        done = self.epoch_K[-1] or 1.0
        placed = self.at(update_P.tolist())
        return {axis: placed[axis] + beyond_P * last[axis][0] / done for axis in AXES} | {
            "epoch": epoch_P
        }

    def _on(
        self, known_K: npt.NDArray[np.float64], update_P: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        placed_P: npt.NDArray[np.float64] = np.interp(update_P, self.update_K, known_K)
        return placed_P


def run_progress(
    run: RunView,
    stages: StageStore,
    goodput: RunGoodput | None,
    open_: OpenEpoch | None = None,
) -> Progress:
    """The run's progress, of its finished epochs and of what is committed of the one at work."""
    trained = [(stage.number, record) for stage, record in run.of_kind("train")]
    done = [stage for stage in run.needed if run.is_done(stage)]
    found = stages.store.map(lambda key: _anchors(stages, key), [stage.known_key for stage in done])
    anchors = {stage.known_key: one for stage, one in zip(done, found, strict=True) if one}
    moments = [moment for pairs in anchors.values() for _, moment in pairs]
    first = trained[0][1].values if trained else {"updates_done": 0, "updates": 0}
    knots = [(float(first["updates_done"] - first["updates"]), 0.0, 0.0, 0.0)]
    if trained:
        knots[0] = (knots[0][0], float(trained[0][0]), 0.0, 0.0)
    ends: dict[int, int] = {}
    for epoch, record in trained:
        updates, samples = int(record.values["updates"]), int(record.values["samples"])
        _, _, samples_before, time = knots[-1]
        before = int(record.values["updates_done"]) - updates
        pairs = anchors.get(record.key, [])
        known = goodput.epochs.get(epoch) if goodput is not None else None
        spent = (pairs[-1][1] - pairs[0][1]) / 1000 if pairs else float("nan")
        if known is not None:
            spent = known.wall_seconds
        for done_in, moment in pairs:
            share = done_in / max(updates, 1)
            if 0 < share < 1:
                gone = min((moment - pairs[0][1]) / 1000, spent)
                knots.append(
                    (before + done_in, epoch + share, samples_before + share * samples, time + gone)
                )
        ends[epoch] = before + updates
        knots.append((before + updates, epoch + 1.0, samples_before + samples, time + spent))
    if open_ is not None and open_.updates:
        knots += _open_knots(open_, knots[-1])
        moments += [moment for _, moment in open_.times]
    update_K, epoch_K, samples_K, time_K = np.array(knots, dtype=np.float64).T
    return Progress(
        update_K, epoch_K, samples_K, time_K, ends,
        min(moments, default=None), max(moments, default=None),
    )  # fmt: skip


def _open_knots(
    open_: OpenEpoch, before: tuple[float, float, float, float]
) -> Iterator[tuple[float, float, float, float]]:
    """Where an epoch at work was, from the end of the one before."""
    _, _, samples, time = before
    # Of how many updates it is of an earlier version does not say: it lies in its epoch, not where.
    whole = max(open_.num_updates or 2 * open_.updates, open_.updates)
    first = open_.times[0][1]
    for done, moment in open_.times:
        if 0 < done <= open_.updates:
            share = (open_.samples or 0) * done / open_.updates
            yield (
                open_.updates_before + done,
                open_.epoch + done / whole,
                samples + share,
                time + (moment - first) / 1000,
            )


def _anchors(stages: StageStore, key: str) -> list[list[int]]:
    """When a stage's updates were; empty where the side file is missing or damaged."""
    try:
        body = stages.read_side_file(key, TIMES)
        return [] if body is None else sorted(checked_times(body.get("anchors")))
    except CorruptObject:
        return []


def update_curves(
    tables: RunTables, open_: OpenEpoch | None = None, *, most: int = MAX_POINTS
) -> dict[str, Curve]:
    """Name of each metric of an update → its curve over the run.

    Of finished epochs, and of what is committed of the one at work.

    At most 128 of them, in the order in which an epoch records them, each of at most `most` points;
    of a group's gradients `MAX_GROUP_POINTS`. Raises CorruptObject.
    """
    from epochal.data.tables.writing import read_table

    curves: dict[str, Curve] = {}
    epochs = max(len(tables.trained) + (open_ is not None), 1)

    def add(name: str, steps_U: npt.NDArray[Any], values_U: npt.NDArray[Any]) -> None:
        if name in curves or len(curves) < MAX_CURVES:
            curve = curves.setdefault(name, Curve(name))
            curve.extend(steps_U, values_U, buckets=max(1, _most(name, most) // epochs))

    for record in tables.trained.values():
        with tables.stages.fetch_artifact(record, "updates") as path:
            columns = read_table(
                path, schema=UPDATES, max_rows=record.values["updates"] * MAX_KEYS
            ).columns
        for name, steps_U, values_U in _by_key(columns):
            add(name, steps_U, values_U)
    if open_ is not None:
        steps_U = np.arange(open_.updates) + open_.updates_before + 1
        for name, values_U in open_.metrics.items():
            add(name, steps_U, values_U)
    return {name: curve.thinned(_most(name, most)) for name, curve in curves.items()}


def _most(name: str, most: int) -> int:
    return min(most, MAX_GROUP_POINTS) if name.startswith(GROUP) else most


def _by_key(
    columns: Mapping[str, npt.NDArray[Any]],
) -> Iterable[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    places: dict[str, int] = {}
    # A dict keeps the few names in order: sorting all the texts takes ten times as long.
    place_N = np.fromiter(
        (places.setdefault(key, len(places)) for key in columns["key"].tolist()), dtype=np.int64
    )
    order_N = np.argsort(place_N, kind="stable")
    ends = np.cumsum(np.bincount(place_N, minlength=len(places)))
    for name, number in places.items():
        rows = order_N[(ends[number - 1] if number else 0) : ends[number]]
        yield name, columns["step"][rows], columns["value"][rows]


def epoch_curves(rows: Sequence[EpochRow], ends: Mapping[int, int]) -> dict[str, Curve]:
    """`train/loss` and `validation/<metric>` at the ends of epochs; what is not finite is left out.

    ends: epoch → updates done at its end.
    """
    curves: dict[str, Curve] = {}
    for row in rows:
        values = {"train/loss": row.loss}
        values |= {f"validation/{name}": value for name, value in row.metrics.items()}
        for name, value in values.items():
            curve = curves.setdefault(name, Curve(name))
            if value is not None:
                curve.add(float(ends[row.epoch]), value)
    return {name: curve.thinned(MAX_POINTS) for name, curve in curves.items() if curve.x}
