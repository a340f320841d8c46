"""A run's updates as its tables have them: which is meant, its numbers, and what came before it.

Computes no update again. Updates are counted from 1 over the whole run, as in every curve.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError, NotFound
from epochal.data.stage_store.records import StageRecord
from epochal.data.tables.schemas import MAX_KEYS, UPDATES
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.open_epoch import MAX_COMMIT_BYTES, OpenEpoch, open_epoch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# U updates of an epoch, R of a run

LOSS, RATE, NORM, CLIPPED = (
    "train/loss", "train/learning_rate", "gradients/norm", "gradients/norm_clipped",
)  # fmt: skip
GROUP = f"{NORM}/"
WINDOW, LEAST = 64, 16
"""Updates that one is held against: those right before it, and at least so many."""
SPIKE = 5.0
"""Times the median before it from which a norm counts as a spike in an epoch's record."""
_BLOCK = 1 << 14  # windows that are sorted at once: 8 MiB


@dataclass(frozen=True)
class TrainedEpoch:
    """An epoch that is trained: its updates are numbers first to last over the run."""

    epoch: int
    first: int
    last: int
    record: StageRecord

    @property
    def count(self) -> int:
        """Its updates."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class EpochAtWork:
    """The epoch that is not done: its updates first to last over the run are committed."""

    epoch: int
    first: int
    last: int
    open: OpenEpoch

    @property
    def count(self) -> int:
        """Its updates that are committed."""
        return self.last - self.first + 1


KnownEpoch = TrainedEpoch | EpochAtWork


@dataclass(frozen=True)
class Spike:
    """How an update stands out. of: `train/loss` or `gradients/norm`; ratio: value / median.

    median: of up to 64 finite values right before it.
    """

    update: int
    of: str
    value: float
    median: float

    @property
    def ratio(self) -> float:
        """How many times the median the value is."""
        return self.value / self.median

    @property
    def is_spike(self) -> bool:
        """Whether it is as large as what `gradients/spikes` counts."""
        return self.ratio > SPIKE

    def as_object(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {"of": self.of, "value": self.value, "median": self.median, "ratio": self.ratio}


@dataclass(frozen=True, eq=False)
class EpochUpdates:
    """The step metrics of an epoch: metric → float64 of shape (U,), NaN where there is none."""

    trained: KnownEpoch
    columns: Mapping[str, npt.NDArray[np.float64]]

    def at(self, update: int) -> dict[str, float]:
        """Metric → value at that update of the run."""
        row = update - self.trained.first
        return {name: float(column_U[row]) for name, column_U in self.columns.items()}


def trained_epochs(run: FoundRun) -> list[TrainedEpoch]:
    """The run's epochs that are trained. Raises NotFound where there is none."""
    found = []
    for stage, record in run.of_kind("train"):
        last = record.values["updates_done"]
        first = last - record.values["updates"] + 1
        found.append(TrainedEpoch(stage.number, first, last, record))
    if not found:
        raise NotFound(
            f"{run.plan.reference} has no trained epoch in {run.store.url}, and so no update to "
            "tell of: `epochal train` it first"
        )
    return found


def known_epochs(run: FoundRun) -> list[KnownEpoch]:
    """The epochs that are trained, and the one at work, if updates of it are committed.

    Raises NotFound where there is none, CorruptObject.
    """
    open_ = open_epoch(run)
    if open_ is None or not len(open_.metrics.get(LOSS, ())):
        return [*trained_epochs(run)]
    first = open_.updates_before + 1
    at_work = EpochAtWork(open_.epoch, first, first + open_.updates - 1, open_)
    return [*(trained_epochs(run) if open_.epoch else []), at_work]


def epoch_of(run: FoundRun, epochs: Sequence[KnownEpoch], update: int) -> KnownEpoch:
    """The epoch that the update belongs to. Raises InputError, naming those that there are."""
    for trained in epochs:
        if trained.first <= update <= trained.last:
            return trained
    first, last = epochs[0], epochs[-1]
    unfinished = ""
    if isinstance(last, EpochAtWork):
        of = "" if last.open.num_updates is None else f" of {last.open.num_updates}"
        unfinished = (
            f"; epoch {last.epoch} is not done, and committed up to its update {last.count}{of} "
            "(checkpoint.every_seconds says how often)"
        )
    elif update > last.last and last.epoch + 1 < run.config.epochs and run.stopped_after is None:
        unfinished = (
            f"; epoch {last.epoch + 1} is not done, and has no commit that can be looked into (one "
            f"of more than {MAX_COMMIT_BYTES / 1e9:.1f} GB is not)"
        )
    raise InputError(
        f"--update {update}: {run.plan.reference} has updates {first.first} to {last.last}, of "
        f"epochs {first.epoch} to {last.epoch}{unfinished}"
    )


def read_updates(
    run: FoundRun, trained: KnownEpoch, *, only: tuple[str, ...] | None = None
) -> EpochUpdates:
    """The step metrics of an epoch. only: those wanted; None: all. Raises CorruptObject."""
    import numpy as np

    from epochal.data.tables.writing import read_table

    if isinstance(trained, EpochAtWork):
        held = trained.open.metrics
        return EpochUpdates(
            trained, {name: held[name] for name in held if only is None or name in only}
        )

    most = max(1, trained.count) * MAX_KEYS
    with run.stage_store.fetch_artifact(trained.record, "updates") as path:
        table = read_table(path, schema=UPDATES, max_rows=most).columns
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name, rows in _runs_of(table["key"]):
        if only is not None and name not in only:
            continue
        column_U = columns.setdefault(name, np.full(trained.count, np.nan))
        place = table["step"][rows] - trained.first
        inside = (place >= 0) & (place < trained.count)
        column_U[place[inside]] = table["value"][rows][inside]
    return EpochUpdates(trained, columns)


def _runs_of(key_N: npt.NDArray[Any]) -> Iterator[tuple[str, slice]]:
    """Each stretch of rows with one key: a table is written key by key."""
    import numpy as np

    if not len(key_N):
        return
    starts = [0, *(np.flatnonzero(key_N[1:] != key_N[:-1]) + 1).tolist(), len(key_N)]
    for start, end in itertools.pairwise(starts):
        yield str(key_N[start]), slice(start, end)


def before(
    run: FoundRun, epochs: Sequence[KnownEpoch], here: EpochUpdates, update: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Metric → its values at up to 64 updates right before, the last one last.

    Those of earlier epochs too, as far as they have the metric.
    """
    import numpy as np

    row = update - here.trained.first
    found = {name: column_U[max(0, row - WINDOW) : row] for name, column_U in here.columns.items()}
    missing, place = WINDOW - row, epochs.index(here.trained)
    while missing > 0 and place > 0:
        place -= 1
        columns = read_updates(run, epochs[place]).columns
        held = min(missing, epochs[place].count)
        for name, column in found.items():
            earlier_U = columns.get(name, np.full(epochs[place].count, np.nan))
            found[name] = np.concatenate([earlier_U[len(earlier_U) - held :], column])
        missing -= held
    return found


def medians(before_: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Metric → median of its finite values, of those that have at least 16."""
    import numpy as np

    found = {}
    for name, column in before_.items():
        finite = column[np.isfinite(column)]
        if len(finite) >= LEAST:
            found[name] = float(np.median(finite))
    return found


def largest_spike(
    run: FoundRun, epochs: Sequence[KnownEpoch], *, epoch: int | None = None
) -> tuple[Spike, int]:
    """The update whose loss or gradient norm is most times the median before it; and a count.

    epoch: only its updates; None: all. The count is of updates there whose loss or norm is not
    finite, which neither count nor are counted. Raises NotFound where no update has 16 before it.
    """
    import numpy as np

    read = list(epochs)
    if epoch is not None:  # held against the updates right before it, and no others are read
        own = next(one for one in epochs if one.epoch == epoch)
        read = [one for one in epochs if own.first - WINDOW <= one.last and one.epoch <= epoch]
    columns = [read_updates(run, one, only=(LOSS, NORM)).columns for one in read]
    update_R = np.concatenate([np.arange(one.first, one.last + 1) for one in read])
    asked_R = np.concatenate([np.full(one.count, epoch in {None, one.epoch}) for one in read])
    best: Spike | None = None
    bad_R = np.zeros(len(update_R), dtype=bool)
    for name in (LOSS, NORM):
        missing = [np.full(one.count, np.nan) for one in read]
        value_R = np.concatenate(
            [one.get(name, none) for one, none in zip(columns, missing, strict=True)]
        )
        bad_R |= ~np.isfinite(value_R)
        median_R = _medians_before(value_R)
        fits_R = asked_R & (median_R > 0) & np.isfinite(value_R)
        ratio_R = np.where(fits_R, value_R, 0) / np.where(fits_R, median_R, 1)
        if not fits_R.any():
            continue
        row = int(np.argmax(ratio_R))
        found = Spike(int(update_R[row]), name, float(value_R[row]), float(median_R[row]))
        if best is None or found.ratio > best.ratio:
            best = found
    if best is None:
        where = "the run" if epoch is None else f"epoch {epoch}"
        raise NotFound(
            f"{run.plan.reference}: a spike stands out against the updates before it, of which it "
            f"needs {LEAST}, and no update of {where} has as many; give --update N, one of "
            f"{read[-1].first if epoch is not None else read[0].first} to {read[-1].last}"
        )
    return best, int((bad_R & asked_R).sum())


def _medians_before(value_R: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of the 64 finite values before each, of at least 16: float64 of shape (R,), NaN without."""
    import numpy as np

    finite_R = np.isfinite(value_R)
    value_F = value_R[finite_R]
    median_F = np.full(len(value_F), np.nan)
    for row in range(LEAST, min(WINDOW, len(value_F))):
        median_F[row] = np.median(value_F[:row])
    if len(value_F) > WINDOW:
        windows_FW = np.lib.stride_tricks.sliding_window_view(value_F, WINDOW)[:-1]
        for start in range(0, len(windows_FW), _BLOCK):
            block = windows_FW[start : start + _BLOCK]
            median_F[WINDOW + start : WINDOW + start + len(block)] = np.median(block, axis=1)
    median_R = np.full(len(value_R), np.nan)
    median_R[finite_R] = median_F
    return median_R
