"""A run while its stages are computed: what the bodies of all stages share.

Knows no plan, no tracker and no Prefect: `tasks.running` opens it and works on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from epochal.data.inspection.dataset import OpenDataset
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.store import Store
from epochal.tasks.checkpoints.warm_start import Weights
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.stage import StageGoodput
from epochal.tasks.planning.run_view import PACKAGE, VERSIONS, RunView
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.reporting import Reporter
from epochal.tasks.trainer.interruption import Interruption
from epochal.tasks.trainer.trainer import Trainer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class EpochPart:
    """The step metrics of an epoch at work, as far as they are committed.

    metrics: name → float64 of shape (U,), of the epoch's updates so far. updates_before: over the
    run, by the epoch's start. times: pairs (updates done in the epoch, ms since 1970).
    """

    key: str
    metrics: Mapping[str, npt.NDArray[np.float64]]
    updates_before: int
    times: Sequence[Sequence[int]]


def _to_nobody(part: EpochPart) -> None:
    """Drops the part: used where there is no tracker."""


@dataclass
class Session:
    """Everything that the stages of one run share.

    run: the stages and the records of those that are done. trainer: who computes. data: field of
    the config → what is known of the data set, which the trainer has. device: as torch names it.
    start: the weights to start from, if the config names any.
    resumed_at: key → micro-step that its stage went on from.
    deliver_part: takes what is committed of an epoch at work, for live curves.
    goodput: by the clock, what the stages' time goes into. signs: store and run, whose sign of life
    the trainer leaves on this machine; None: no sign. forms: field of the config → what the first
    item of the data set is made of (`data.inspection.item_form`), where something is computed.
    """

    run: RunView
    run_inputs: RunInputs
    store: Store
    stage_store: StageStore
    trainer: Trainer
    data: Mapping[str, OpenDataset]
    device: str
    environment: Mapping[str, Any]
    reporter: Reporter
    start: Weights | None = None
    resumed_at: dict[str, int] = field(default_factory=dict)
    interruption: Interruption = field(default_factory=Interruption)
    deliver_part: Callable[[EpochPart], None] = _to_nobody
    goodput: StageGoodput = field(default_factory=StageGoodput)
    signs: tuple[str, str] | None = None
    forms: Mapping[str, Any] = field(default_factory=dict)
    _live: tuple[str, int] | None = None

    @property
    def live_key(self) -> str | None:
        """The stage whose checkpoint the trainer's state is; None if nobody's."""
        if self._live is None or self._live[1] != self.trainer.starts:
            return None
        return self._live[0]

    @live_key.setter
    def live_key(self, key: str | None) -> None:
        self._live = None if key is None else (key, self.trainer.starts)

    @property
    def config(self) -> RunConfig:
        """The run's config, with the number of epochs that `max_updates` leaves."""
        return self.run.config

    def environment_of(self, stage: Stage) -> dict[str, Any]:
        """What the record of a stage holds: the numerics environment, and installed packages.

        Those that the code of the model and of the stage's own targets imports.
        """
        packages = {
            PACKAGE + name: version
            for field, versions in self.run_inputs.packages.items()
            if field == "model" or field.partition(".")[0] in stage.inputs or field in stage.inputs
            for name, version in versions.items()
            if name not in self.environment[VERSIONS]
        }
        return {**self.environment, **packages}
