"""The runs of a page, each read once, and where on the page's axes they are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.errors import CorruptObject
from epochal.tasks.goodput.run import RunGoodput, run_goodput
from epochal.tasks.report.page.charts.curve import AXES, Curve
from epochal.tasks.report.page.charts.plot import Charts, unit_of
from epochal.tasks.report.page.curves import Progress, epoch_curves, run_progress
from epochal.tasks.report.page.facts import run_facts
from epochal.tasks.report.samples import NO_DATA
from epochal.tasks.report.tables import RunTables
from epochal.tasks.run_data.sample_names import SampleNames, stored_names
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.open_epoch import OpenEpoch, open_epoch
from epochal.tasks.runs.summary import EpochRow, epoch_rows

if TYPE_CHECKING:
    import numpy.typing as npt

Images = Callable[[Sequence[int]], "list[npt.NDArray[np.float32]]"]
Predictions = Callable[[Sequence[int]], "list[int | None]"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShownRun:
    """A run for a page. images: reads those of samples by id, or says why there are none.

    predictions: the classes that the newest checkpoint predicts for samples by id, None for one it
    names no class of; or why they are not known. tables: of this run, if they are open already.
    names: of samples, classes and files; None: what the store knows.
    """

    run: FoundRun
    images: Images | str = NO_DATA
    predictions: Predictions | str = NO_DATA
    tables: RunTables | None = None
    names: SampleNames | None = None


class ReadRun:
    """One run of the page, read once.

    updates: its curves of updates, by name, once they are read. unread: why `open` is not known.
    """

    def __init__(self, shown: ShownRun) -> None:
        self.found = shown.run
        self.images = shown.images
        self.predictions = shown.predictions
        self.tables = shown.tables or RunTables.of_run(shown.run)
        self.names = shown.names or stored_names(shown.run, notice=logger.warning)
        self.name = shown.run.plan.reference
        self.updates: dict[str, Curve] = {}
        self.unread = ""

    @cached_property
    def rows(self) -> list[EpochRow]:
        """Of its finished epochs."""
        return epoch_rows(self.found)

    @cached_property
    def goodput(self) -> RunGoodput | None:
        """What its time went into; None where the store does not know."""
        return run_goodput(self.found, self.found.stage_store)

    @cached_property
    def open(self) -> OpenEpoch | None:
        """The epoch that is not done, as far as it is committed."""
        try:
            return open_epoch(self.found)
        except CorruptObject as error:
            self.unread = str(error)
            return None

    @cached_property
    def progress(self) -> Progress:
        """How far it was at each update."""
        return run_progress(self.found, self.found.stage_store, self.goodput, self.open)

    @cached_property
    def epochs(self) -> dict[str, Curve]:
        """Its curves of epochs, by name."""
        return epoch_curves(self.rows, self.progress.ends)

    @cached_property
    def facts(self) -> dict[str, str]:
        """What it is, by name."""
        return run_facts(self.found, self.rows, self.progress, self.goodput, self.open)


class Page:
    """All runs of a page, its axes and its charts."""

    def __init__(self, runs: Sequence[ShownRun]) -> None:
        self.runs = [ReadRun(one) for one in runs]

    @property
    def single(self) -> bool:
        """Whether the page is of one run."""
        return len(self.runs) == 1

    def titled(self, title: str, run: ReadRun) -> str:
        """The title, with the run's name where there are several."""
        return title if self.single else f"{title}: {run.name}"

    @cached_property
    def _unit(self) -> tuple[float, str]:
        runs = [run for run in self.runs if len(run.progress.update_K) > 1]
        times = [float(np.nanmax(run.progress.time_K)) for run in runs]
        return unit_of(max(times, default=0.0))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Of the axes."""
        return {
            "epoch": "epochs done",
            "update": "updates",
            "time": f"{self._unit[1]} of work",
            "samples": "samples trained on",
        }

    @cached_property
    def charts(self) -> Charts:
        """All of the page, whose axes reach as far as the longest run."""
        extents = {}
        for axis in AXES:
            ends = [self.places(run, run.progress.update_K[-1:])[axis] for run in self.runs]
            far = [float(end) for end_P in ends for end in end_P if np.isfinite(end)]
            extents[axis] = (0.0, max(max(far, default=0.0), 1e-9))
        return Charts(extents, [run.name for run in self.runs])

    def places(self, run: ReadRun, updates: Any) -> dict[str, npt.NDArray[np.float64]]:
        """Where updates of the run lie on each axis."""
        return self._scaled(run.progress.at(updates))

    def starts(self, run: ReadRun, epochs: Sequence[int]) -> dict[str, npt.NDArray[np.float64]]:
        """Where epochs of the run begin on each axis."""
        return self._scaled(run.progress.starts(epochs))

    def _scaled(
        self, places: Mapping[str, npt.NDArray[np.float64]]
    ) -> dict[str, npt.NDArray[np.float64]]:
        return {**places, "time": places["time"] / self._unit[0]}
