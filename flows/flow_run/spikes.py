"""An event in Prefect when a run's loss or gradient norm jumps, for an automation that tells of it.

A run that ends badly needs none of ours: Prefect itself says `prefect.flow-run.Failed`, with the
message, and so it is with numbers that are not finite, which end a run. Where they are skipped
instead, there is an event.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from epochal.flows.flow_run.client import current_flow_run
from epochal.flows.flow_run.log import FlowLog
from epochal.tasks.reporting import Live, Outcome
from epochal.tasks.running.run import Run

EVENT = "epochal.spike"
FACTOR = 5.0
"""Times the median before it; the same as in `gradients/spikes`, which counts all updates."""
WINDOW, LEAST = 64, 16
"""Values that the median is of; fewer than LEAST say nothing yet."""
EPOCH_FACTOR, EPOCHS = 2.0, 5
"""A whole epoch's loss against the median of so many before it."""


@dataclass(frozen=True)
class Spike:
    """What jumped: `gradient norm`, `loss`, or `update` for one that was skipped.

    value: what it was; None: not finite. median: of the values before it. update: in the epoch,
    counted from 1; None: the whole epoch.
    """

    epoch: int
    what: str
    value: float | None
    median: float | None
    update: int | None = None
    count: int = 1

    @property
    def text(self) -> str:
        """As a person reads it."""
        where = f"epoch {self.epoch}"
        if self.update is not None:
            where = f"{where}, about update {self.update}"
        if self.what == "update":
            return f"{where}: {self.count} updates were not finite and were skipped"
        shown = "not finite" if self.value is None else f"{self.value:.4g}"
        if self.median is None:
            return f"{where}: {self.what} {shown}"
        if self.value is None:
            return f"{where}: {self.what} {shown}, {self.median:.4g} in the median before it"
        return (
            f"{where}: {self.what} {shown}, {self.value / max(self.median, 1e-300):.1f} times the "
            "median before it"
        )


class SpikeWatch:
    """Finds spikes in what a run reports, at most one of each kind in an epoch. Pure.

    Inside an epoch by the updates that are shown live, which are not all of them; at its end by
    the record, which counts all.
    """

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = {}
        self._losses: deque[float] = deque(maxlen=EPOCHS)
        self._told: set[tuple[int, str]] = set()

    def live(self, live: Live) -> list[Spike]:
        """The spikes at that update."""
        found = []
        for what, value in (("gradient norm", live.gradient_norm), ("loss", live.loss)):
            before = self._values.setdefault(what, deque(maxlen=WINDOW))
            median = statistics.median(before) if len(before) >= LEAST else None
            if not math.isfinite(value):
                found.append(Spike(live.epoch, what, None, median, live.update))
                continue
            if median is not None and value > FACTOR * median:
                found.append(Spike(live.epoch, what, value, median, live.update))
            before.append(value)
        return self._new(found)

    def ended(self, outcome: Outcome) -> list[Spike]:
        """The spikes in that epoch that were not found before."""
        stage, values = outcome.stage, outcome.record.values
        if stage.kind != "train":
            return []
        found, epoch = [], stage.number
        if values.get("spikes"):
            found.append(
                Spike(epoch, "gradient norm", values["gradient_norm"], None, count=values["spikes"])
            )
        if values.get("updates_skipped"):
            found.append(Spike(epoch, "update", None, None, count=values["updates_skipped"]))
        loss = values["loss"]
        if loss is not None:
            median = statistics.median(self._losses) if len(self._losses) == EPOCHS else None
            if median is not None and loss > EPOCH_FACTOR * median:
                found.append(Spike(epoch, "loss", loss, median))
            self._losses.append(loss)
        told = self._new(found)
        return [] if outcome.cached else told

    def _new(self, found: list[Spike]) -> list[Spike]:
        new = [spike for spike in found if (spike.epoch, spike.what) not in self._told]
        self._told |= {(spike.epoch, spike.what) for spike in new}
        return new


class _Teller:
    """A listener that emits the events; they leave in a thread of Prefect's own."""

    def __init__(self, run: Run, log: FlowLog) -> None:
        flow_run = current_flow_run()
        assert flow_run is not None
        self._run, self._log = run, log
        self._resource = {
            "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
            "prefect.resource.name": flow_run.name,
            "epochal.run": run.plan.reference,
        }
        self._watch = SpikeWatch()

    def linked(self, title: str, url: str) -> None:
        """Nothing."""

    def live(self, live: Live) -> None:
        """Looks at an update."""
        self._tell(self._watch.live(live))

    def ended(self, outcome: Outcome) -> None:
        """Looks at an epoch."""
        self._tell(self._watch.ended(outcome))

    def _tell(self, spikes: list[Spike]) -> None:
        from prefect.events import emit_event

        for spike in spikes:
            reference = self._run.plan.reference
            payload: dict[str, Any] = {
                "run": reference,
                "what": spike.what,
                "epoch": spike.epoch,
                "update": spike.update,
                "value": spike.value,
                "median": spike.median,
                "count": spike.count,
                "text": spike.text,
            }
            emit_event(event=EVENT, resource=self._resource, payload=payload)
            look = f"`epochal why {reference} --epoch {spike.epoch}` opens it"
            self._log.logged(logging.WARNING, f"spike in {spike.text}; {look}")


@contextmanager
def telling_of_spikes(run: Run, log: FlowLog) -> Iterator[None]:
    """Inside a flow: spikes that `log` is told of in the block become events."""
    log.listeners.append(_Teller(run, log))
    yield
