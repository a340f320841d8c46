"""The curves of a run out of its store: per epoch, and per update with a bounded number of points.

Nothing is asked of MLflow. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.tables.schemas import MAX_KEYS, UPDATES
from epochal.tasks.goodput.run import RunGoodput
from epochal.tasks.goodput.stopwatch import CAUSES
from epochal.tasks.report.tables import RunTables
from epochal.tasks.runs.summary import EpochRow

if TYPE_CHECKING:
    import numpy.typing as npt

# U updates of an epoch, B buckets that they are put into

MAX_BUCKETS = 600
"""Points of a curve over the whole run; an epoch has one at least."""
MAX_CURVES = 64


@dataclass
class Curve:
    """A line: at each x the mean, the lowest and the highest of the values it stands for."""

    name: str
    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    @property
    def has_band(self) -> bool:
        """Whether points stand for several values."""
        return self.low != self.high


def update_curves(tables: RunTables) -> dict[str, Curve]:
    """Name of each metric of an update → its curve over the run, of finished epochs.

    At most 64 of them, in the order in which an epoch records them. Raises CorruptObject.
    """
    from epochal.data.tables.writing import read_table

    curves: dict[str, Curve] = {}
    per_epoch = max(1, MAX_BUCKETS // max(len(tables.trained), 1))
    for record in tables.trained.values():
        with tables.stages.fetch_artifact(record, "updates") as path:
            most = record.values["updates"] * MAX_KEYS
            columns = read_table(path, schema=UPDATES, max_rows=most).columns
        for name, steps_U, values_U in _by_key(columns):
            if name not in curves and len(curves) >= MAX_CURVES:
                continue
            _extend(curves.setdefault(name, Curve(name)), steps_U, values_U, buckets=per_epoch)
    return curves


def _by_key(
    columns: Mapping[str, npt.NDArray[Any]],
) -> Iterable[tuple[str, npt.NDArray[Any], npt.NDArray[Any]]]:
    import numpy as np

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


def _extend(
    curve: Curve, steps_U: npt.NDArray[Any], values_U: npt.NDArray[Any], *, buckets: int
) -> None:
    """Puts an epoch's values into at most `buckets` buckets; values not finite leave gaps."""
    import numpy as np

    finite_U = np.isfinite(values_U)
    steps_U, values_U = steps_U[finite_U], values_U[finite_U]
    count = min(buckets, len(values_U))
    if not count:
        return
    starts_B = np.arange(count) * len(values_U) // count
    sizes_B = np.diff(np.append(starts_B, len(values_U)))
    for kept, found_B in (
        (curve.x, np.add.reduceat(steps_U.astype(np.float64), starts_B) / sizes_B),
        (curve.mean, np.add.reduceat(values_U / sizes_B.repeat(sizes_B), starts_B)),
        (curve.low, np.minimum.reduceat(values_U, starts_B)),
        (curve.high, np.maximum.reduceat(values_U, starts_B)),
    ):
        kept.extend(found_B.tolist())


def epoch_curves(rows: Sequence[EpochRow]) -> dict[str, Curve]:
    """`train/loss` and `validation/<metric>` over the epochs; what is not finite is left out."""
    curves: dict[str, Curve] = {}
    for row in rows:
        values = {"train/loss": row.loss}
        values |= {f"validation/{name}": value for name, value in row.metrics.items()}
        for name, value in values.items():
            curve = curves.setdefault(name, Curve(name))
            if value is not None:
                curve.x.append(float(row.epoch))
                for kept in (curve.mean, curve.low, curve.high):
                    kept.append(value)
    return {name: curve for name, curve in curves.items() if curve.x}


def cause_curves(goodput: RunGoodput) -> list[Curve]:
    """The seconds of each cause that took any, over the epochs of which they are known."""
    curves = []
    for cause in CAUSES:
        seconds = [one.seconds.get(cause, 0.0) for one in goodput.epochs.values()]
        if any(seconds):
            x = [float(epoch) for epoch in goodput.epochs]
            curves.append(Curve(cause.replace("_", " "), x, seconds, seconds, seconds))
    return curves
