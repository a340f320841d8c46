"""The tables of a run, read for people: scores of all epochs, who was kept, metrics of updates.

How much is read for a picture is limited, so that it takes seconds only; what a limit leaves out
is reported. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from epochal.data.config.sampling import SamplingConfig
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.tables.schemas import SAMPLES, Schema
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# N samples, C classes, E epochs, K of them whose tables are read

MAX_PICTURE_ROWS = 1 << 25
"""Rows that are read for one picture, over all its tables: a few seconds' work."""
MAX_CLASSES = 10_000
"""Classes up to which they are told apart: more labels than that are no classes."""
_KEPT_ONLY = Schema(
    name=SAMPLES.name,
    version=SAMPLES.version,
    unique_by=SAMPLES.unique_by,
    columns=tuple(
        column for column in SAMPLES.columns if column.name in {"sample_id", "label", "keep"}
    ),
)

Columns = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class KeptShares:
    """Which share of the samples each epoch was to train on.

    epochs_E, share_E: of all samples, for every epoch that a `mine` stage has planned.
    class_epochs_K, labels_C, share_KC: by class, for as many epochs as may be read; all empty where
    there are more than 10,000 classes.
    """

    epochs_E: Sequence[int]
    share_E: Sequence[float]
    class_epochs_K: Sequence[int]
    labels_C: Sequence[int]
    share_KC: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunTables:
    """The stages of one run that have tables: epoch → record."""

    stages: StageStore
    trained: Mapping[int, StageRecord]
    mined: Mapping[int, StageRecord]
    sampling: SamplingConfig

    @classmethod
    def of_run(cls, run: FoundRun) -> RunTables:
        """The stages of the run that have tables; none after the epoch that ended it early."""

        def by_epoch(kind: str) -> dict[int, StageRecord]:
            return {stage.number: record for stage, record in run.of_kind(kind)}

        return cls(run.stage_store, by_epoch("train"), by_epoch("mine"), run.config.sampling)

    def samples(self) -> dict[str, Any] | None:
        """The newest table of samples, or None where no stage has mined."""
        from epochal.data.tables.writing import read_table

        if not self.mined:
            return None
        record = self.mined[max(self.mined)]
        with self.stages.fetch_artifact(record, "samples") as path:
            return dict(read_table(path, schema=SAMPLES, max_rows=record.values["samples"]).columns)

    def observations(self, epoch: int) -> dict[str, Any]:
        """What that epoch saw. Raises CorruptObject."""
        from epochal.data.tables.writing import OBSERVATIONS, read_table

        record = self.trained[epoch]
        with self.stages.fetch_artifact(record, "observations") as path:
            most = record.values["samples"]
            return dict(read_table(path, schema=OBSERVATIONS, max_rows=most).columns)

    @cached_property
    def scores(self) -> Mapping[str, Any] | None:
        """The table of samples, or one made here of all observations; None if no epoch is trained.

        Read once: a page shows several things of it.
        """
        from epochal.data.samples.table import table_of_all

        if self.mined:
            return self.samples()
        epochs = ((epoch, self.observations(epoch)) for epoch in self.trained)
        with closing(epochs):
            table = table_of_all(epochs, confidence=self.sampling.easy_from)
        return None if table is None else dict(table.columns)

    @property
    def picture_rows(self) -> int:
        """How many rows `scores` reads."""
        if self.mined:
            return int(self.mined[max(self.mined)].values["samples"])
        return sum(int(record.values["samples"]) for record in self.trained.values())

    def kept(self) -> KeptShares | None:
        """The share of samples kept for each epoch and class; None without a mine stage."""
        import numpy as np

        if not self.mined:
            return None
        read: list[tuple[int, Any, Any]] = []
        labels_C = np.empty(0, dtype=np.int64)
        for epoch, labels, share in self._kept_by_class():
            labels_C = np.union1d(labels_C, labels)
            if len(labels_C) > MAX_CLASSES:
                read, labels_C = [], labels_C[:0]
                break
            read.append((epoch, labels, share))
        share_KC = np.full((len(read), len(labels_C)), np.nan)
        for row, (_, labels, share) in enumerate(read):
            share_KC[row, np.searchsorted(labels_C, labels)] = share
        return KeptShares(
            epochs_E=[epoch + 1 for epoch in self.mined],
            share_E=[float(record.values["kept_fraction"]) for record in self.mined.values()],
            class_epochs_K=[epoch + 1 for epoch, _, _ in read],
            labels_C=labels_C.tolist(),
            share_KC=share_KC,
        )

    def _kept_by_class(self) -> Iterator[tuple[int, Any, Any]]:
        import numpy as np

        from epochal.data.tables.writing import read_table

        for epoch in spread(list(self.mined), most=self._most_tables()):
            record = self.mined[epoch]
            with self.stages.fetch_artifact(record, "samples") as path:
                most = record.values["samples"]
                columns = read_table(path, schema=_KEPT_ONLY, max_rows=most).columns
            labels, place_N = _numbered(columns["label"])
            count = np.bincount(place_N)
            kept = np.bincount(place_N, weights=columns["keep"], minlength=len(count))
            has_samples = count > 0
            yield epoch, labels[has_samples], kept[has_samples] / count[has_samples]

    def _most_tables(self) -> int:
        rows = max(int(record.values["samples"]) for record in self.mined.values())
        return max(2, MAX_PICTURE_ROWS // max(rows, 1))


def _numbered(label_N: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64]]:
    """The distinct labels in ascending order, and for each sample the index of its label."""
    import numpy as np

    low, high = int(label_N.min()), int(label_N.max())
    if high - low <= 2 * len(label_N):  # no sorting
        return np.arange(low, high + 1), label_N - low
    return np.unique(label_N, return_inverse=True)


def spread(values: Sequence[T], *, most: int) -> list[T]:
    """`values`, or if there are more, `most` of them at even steps, first and last included."""
    if len(values) <= most:
        return list(values)
    last = len(values) - 1
    return [values[round(place * last / (most - 1))] for place in range(most)]
