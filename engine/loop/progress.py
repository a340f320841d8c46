"""An epoch at work: how far it is, what it must keep to go on, what is validated between updates.

The values of validations between updates are kept as columns among the step metrics, so that they
are in the epoch's table and in its mid-epoch checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from epochal.data.errors import NonFinite
from epochal.data.types import Batch
from epochal.engine.config.mid_epoch import INSIDE
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.loop.gradients import Gradients
from epochal.engine.loop.loss_weights import LossWeights
from epochal.engine.loop.recorder import LOSS, NORM, Number, UpdateRecorder
from epochal.engine.measure.observe import Columns, Observer
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.group import Group

# U updates of the epoch so far

Column = npt.NDArray[np.float64]
MAX_NAMED_SAMPLES = 10  # in an error


@dataclass(frozen=True)
class LiveMetrics:
    """The last finished update. update: of this epoch, counted from 1."""

    update: int
    loss: float
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class MidEpochState:
    """An epoch up to a micro-step, beside the state: all that `train_epoch` needs to go on.

    micro_steps, updates: done in this epoch. gradients: parameter → gradient of the update under
    way. partial_loss: loss and parts of that update so far, or None between two; denominators: what
    `LossWeights.state` gives of it. update_ends: samples trained on by the end of each update.
    """

    micro_steps: int
    updates: int
    gradients: Mapping[str, Tensor]
    partial_loss: Sequence[Number] | None
    denominators: tuple[float, float] | None
    metrics: Mapping[str, Column]
    observations: Columns
    update_ends: tuple[int, ...]


@dataclass
class Progress:
    """An epoch at work, as `on_progress` sees it after each micro-step; valid during the call.

    micro_steps, rows: micro-batches and samples trained on; of a group's others too, once an update
    has ended. update_ends: rows by the end of each update. validations: update of the epoch, from
    1 → the metrics that were validated after it. between_updates: whether an update has just ended;
    an epoch that is dealt to shards is kept only there. own_rows: samples that this process trained
    on since it began.
    """

    state: TrainingState
    epoch: int
    num_updates: int
    micro_steps: int = 0
    updates: int = 0
    rows: int = 0
    update_ends: list[int] = field(default_factory=list)
    validations: dict[int, dict[str, float]] = field(default_factory=dict)
    between_updates: bool = True
    own_rows: int = 0
    group: Group | None = field(default=None, repr=False)
    recorder: UpdateRecorder = field(repr=False, kw_only=True)
    observer: Observer = field(repr=False, kw_only=True)
    loss_weights: LossWeights = field(repr=False, kw_only=True)

    def took(self, batch: Batch) -> None:
        """Notes that the batch was trained on."""
        window = batch.window
        self.own_rows += batch.num_samples
        self.between_updates = window.last
        if self.group is None:
            self.micro_steps += 1
            self.rows += batch.num_samples
        elif window.last:
            self.micro_steps += window.count
            self.rows += window.num_samples

    def live(self) -> LiveMetrics | None:
        """The last update's numbers, or None before the first; waits for the device.

        Raises NonFinite; in a group that comes where all of it look, not here.
        """
        if self.group is None:
            self.check_finite()
        else:
            self.recorder.read()
        last = self.recorder.last
        if last is None:
            return None
        return LiveMetrics(self.updates, last.loss, last.learning_rate, last.gradient_norm)

    def gather(self) -> None:
        """Brings what the processes of a group have observed to the first; all of them call it.

        Raises NonFinite.
        """
        self.check_finite()
        if self.group is not None:
            self.observer.gather(self.group)

    def capture(self) -> MidEpochState:
        """What must be kept beside the state to go on from here. Raises NonFinite."""
        self.gather()
        gradients = {
            name: parameter.grad
            for name, parameter in self.state.named_parameters().items()
            if parameter.grad is not None
        }
        return MidEpochState(
            micro_steps=self.micro_steps,
            updates=self.updates,
            gradients=gradients,
            partial_loss=self.recorder.partial_loss(),
            denominators=self.loss_weights.state(),
            metrics=self.columns(),
            observations=self.observer.columns(),
            update_ends=tuple(self.update_ends),
        )

    def columns(self) -> dict[str, Column]:
        """The step metrics so far, each of shape (U,); those of validations come last."""
        return self.recorder.columns() | validation_columns(
            self.validations, num_updates=self.updates
        )

    def check_finite(self) -> None:
        """Raises NonFinite if an update so far had a loss or norm that is NaN or infinite."""
        self.recorder.read()
        update = self.recorder.first_non_finite
        if update is None:
            return
        if self.group is not None:  # all processes find the same update, and name its samples
            self.observer.gather(self.group, everywhere=True)
        columns = self.recorder.columns()
        start, end = ([0, *self.update_ends])[update : update + 2]
        observed = self.observer.columns()
        ids = observed["sample_id"][start:end]
        of_loss = ids[~np.isfinite(observed["loss"][start:end])]
        named = of_loss if len(of_loss) else ids
        shown = ", ".join(map(str, named[:MAX_NAMED_SAMPLES].tolist()))
        more = f" and {len(named) - MAX_NAMED_SAMPLES} more" * (len(named) > MAX_NAMED_SAMPLES)
        raise NonFinite(
            f"epoch {self.epoch}, update {update + 1} of {self.num_updates}: loss "
            f"{columns[LOSS][update]:g}, gradient norm {columns[NORM][update]:g}, expected finite "
            f"numbers; {'samples of a non-finite loss' if len(of_loss) else 'its samples'}: "
            f"{shown}{more}. Nothing of this epoch was committed; look at these samples, lower the "
            "learning rate, use gradients.clip_norm, or gradients.on_nonfinite: skip"
        )


@dataclass(frozen=True)
class MidEpochValidation:
    """Metrics between two updates of an epoch, every so many of them; none at the epoch's end.

    measure: gives metric → value of the model as it is now.
    """

    every_updates: int
    measure: Callable[[Progress], Mapping[str, float]]

    def when_due(self, progress: Progress) -> None:
        """Measures if it is time to and was not done; what `measure` raises goes through."""
        updates = progress.updates
        due = 0 < updates < progress.num_updates and updates % self.every_updates == 0
        if due and updates not in progress.validations and progress.recorder.partial_loss() is None:
            progress.validations[updates] = dict(self.measure(progress))


def validation_columns(
    validations: Mapping[int, Mapping[str, float]], *, num_updates: int
) -> dict[str, Column]:
    """`validation_inside/<metric>` → float64 of shape (U,), NaN where nothing was measured."""
    names = sorted({name for values in validations.values() for name in values})
    columns: dict[str, Column] = {INSIDE + name: np.full(num_updates, math.nan) for name in names}
    for update, values in validations.items():
        for name, value in values.items():
            columns[INSIDE + name][update - 1] = value
    return columns


def validations_of(columns: Mapping[str, Column]) -> dict[int, dict[str, float]]:
    """What `validation_columns` was made of, but for values that are NaN."""
    validations: dict[int, dict[str, float]] = {}
    for name, column in columns.items():
        if name.startswith(INSIDE):
            for row in np.flatnonzero(~np.isnan(column)).tolist():
                validations.setdefault(row + 1, {})[name.removeprefix(INSIDE)] = float(column[row])
    return validations


def without_validations(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns that have a number for every update."""
    return {name: column for name, column in columns.items() if not name.startswith(INSIDE)}


def new_recorder(
    state: TrainingState, gradients: Gradients, config: GradientsConfig
) -> UpdateRecorder:
    """What records the updates of an epoch of this state."""
    return UpdateRecorder(
        gradients.groups,
        gradients.group_of_P,
        extras=gradients.extras,
        rates=tuple(state.further_rates),
        tolerant=config.on_nonfinite == "skip",
    )
