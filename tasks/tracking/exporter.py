"""What MLflow gets of a finished stage, each point exactly once.

    runs/<name>/delivered/<MLflow run id>/<stage key>.<every n>.json     written after the delivery

A stage with such a marker is not delivered again. Without one it may have been delivered in part
before a kill: points that MLflow holds are left out. A point that is sent twice nevertheless stays
one row, because its timestamp comes from the stage's times, which are written once. No threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.tasks.session.session import EpochPart
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.tracking.connection import tracker_lock
from epochal.tasks.tracking.mlflow_run import MAX_ROWS, TrackedRun
from epochal.tasks.tracking.names import mlflow_names
from epochal.tasks.tracking.points import LogEvery, PointReader, Row, StageMetrics

NON_FINITE_TAG = "epochal.non_finite"


@dataclass(frozen=True)
class DeliveryReport:
    """What is delivered by now, of what was asked for, and what could not be read."""

    delivered: frozenset[str]
    problems: tuple[str, ...] = field(default=())


def _named(rows: Sequence[Row]) -> list[Row]:
    """The rows under MLflow's names."""
    names = mlflow_names(row.key for row in rows)
    return [row if names[row.key] == row.key else replace(row, key=names[row.key]) for row in rows]


class Exporter:
    """Delivers stages to one MLflow run, and marks in the store what was delivered."""

    def __init__(
        self,
        run: TrackedRun,
        *,
        stages: StageStore,
        name: str,
        log_every: LogEvery,
        reader: PointReader,
    ) -> None:
        self._run = run
        self._stages = stages
        self._log_every = log_every
        self._reader = reader
        self._folder = f"runs/{name}/delivered/{run.run_id}"
        self._marked = {path.rpartition("/")[2] for path in stages.store.listing(self._folder)}

    def is_delivered(self, record: StageRecord) -> bool:
        """Whether nothing of the stage is left to deliver."""
        if KINDS[record.stage].points is None:
            return True
        return any(marker in self._marked for marker in self._markers(record))

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
                waiting.append((record, self._reader.stage_points(record)))
            except CorruptObject as error:
                problems.append(str(error))
            if sum(len(metrics) for _, metrics in waiting) >= MAX_ROWS:
                self._send(waiting)
                waiting = []
        self._send(waiting)
        done = frozenset(record.key for record in records if self.is_delivered(record))
        return DeliveryReport(done, tuple(problems))

    def deliver_part(self, part: EpochPart) -> None:
        """Delivers what is committed of an epoch at work. Raises what MLflow raises."""
        rows = _named(self._reader.part_points(part).steps)
        with tracker_lock():
            self._run.refresh()
            self._run.log_rows([row for row in rows if self._run.is_new(row)])

    def _send(self, waiting: Sequence[tuple[StageRecord, StageMetrics]]) -> None:
        if not waiting:
            return
        with tracker_lock():
            self._run.refresh()
            rows = [
                row
                for _, metrics in waiting
                for row in (*_named(metrics.steps), *_named(metrics.whole))
            ]
            self._run.log_rows([row for row in rows if not self._run.holds(row)])
        infinite = [text for _, metrics in waiting for text in metrics.infinite]
        if infinite:
            self._run.set_tags({NON_FINITE_TAG: f"{len(infinite)}, first: {infinite[0]}"})
        for record, metrics in waiting:
            marker = self._markers(record)[-1]
            body = {"stage": record.stage, "epoch": record.epoch, "points": len(metrics)}
            with suppress(FileExistsError):  # another process has delivered the same
                self._stages.store.put_new(f"{self._folder}/{marker}", dump_document(body))
            self._marked.add(marker)

    def _markers(self, record: StageRecord) -> list[str]:
        """The names of markers that say that it is delivered, the one that is written last."""
        suffixes = self._log_every.suffixes if "updates" in record.artifacts else ("all",)
        return [f"{record.key}.{suffix}.json" for suffix in suffixes]
