"""The epoch loop: batches in, updates of the state, what they left behind out.

No files, no network, no clock. `on_progress` is called after every micro-step: it can show how far
the epoch is, or keep what is needed to go on from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochal.data.errors import TargetError, TrainingFailed
from epochal.data.types import Batch, Window, seed_64
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.config.numerics import GradientsConfig, PrecisionConfig
from epochal.engine.loop.gradients import SKIPPED, Gradients
from epochal.engine.loop.loss_weights import LossWeights
from epochal.engine.loop.mixing import Mixer
from epochal.engine.loop.phases import COMMUNICATION, OPTIMIZER, Phase, announced, to_nobody
from epochal.engine.loop.progress import (
    MidEpochState,
    MidEpochValidation,
    Progress,
    new_recorder,
    validations_of,
    without_validations,
)
from epochal.engine.loop.recorder import CLIPPED, LOSS, NORM, READ_EVERY
from epochal.engine.loop.resize import resized
from epochal.engine.loop.shared_update import SharedUpdate
from epochal.engine.loop.updates_table import in_long_form
from epochal.engine.measure.observe import Columns, Observer, denominators_of, mean_of
from epochal.engine.model.batch_norm import annealed
from epochal.engine.model.batches import target_of, to_device
from epochal.engine.model.freezing import freeze, set_training_mode
from epochal.engine.model.optimizer_modes import to_evaluate, to_train
from epochal.engine.model.precision import Precision
from epochal.engine.model.state import TrainingState
from epochal.engine.model.step import Step, check_output
from epochal.engine.randomness import borrowed_generators
from epochal.engine.shards.group import Group
from epochal.engine.shards.running_statistics import RunningStatistics, in_order

# B samples of a micro-batch, N of the epoch, U updates of the epoch

SPIKE_WINDOW, SPIKE_LEAST, SPIKE_FACTOR = 64, 16, 5.0
SPIKE_BLOCK = 1 << 14  # updates whose windows are sorted at once: 8 MiB
_PLAIN_GRADIENTS, _FLOAT32 = GradientsConfig(), PrecisionConfig()


def constant_rate(_: float) -> float:
    """The base learning rate, at any fractional epoch."""
    return 1.0


def nothing_frozen(_: int) -> Collection[str]:
    """Every parameter trains, in every epoch."""
    return ()


@dataclass(frozen=True)
class Recipe:
    """How a run trains: what is the same in all of its epochs.

    step: from the model and a batch to losses. gradients, precision: as the config has them.
    mixing: the step then gets a `MixedBatch` instead of a batch; none: nothing is mixed. rate:
    factor of the base learning rate at a fractional epoch. momentum: of a BatchNorm layer, from
    the fractional epoch and the layer's own; none: its own. frozen: from an epoch to patterns of
    the parameters that do not train in it. validation: measured between updates; none: never.
    seed: every micro-step's random numbers follow from it, the epoch and the micro-step's index.
    """

    step: Step
    _: KW_ONLY
    gradients: GradientsConfig = _PLAIN_GRADIENTS
    precision: PrecisionConfig = _FLOAT32
    mixing: MixingConfig | None = None
    rate: Callable[[float], float] = constant_rate
    momentum: Callable[[float, float], float] | None = None
    frozen: Callable[[int], Collection[str]] = nothing_frozen
    validation: MidEpochValidation | None = None
    seed: int = 0


@dataclass(frozen=True)
class EpochResult:
    """What an epoch of training gave.

    mean_loss: over the samples, as the loss defines its mean; NaN where the loss is not per sample
    and there was no update.
    accuracy: share of right predictions in training mode, or None without classes.
    observations: column → array of shape (N,), in order of training.
    updates: metric → float64 of shape (U,). first_update: its number over the run, from 1.
    num_skipped: updates that changed nothing, since their numbers were not finite. clip_rate: share
    of the others whose gradients were clipped; NaN if there were none. num_spikes: updates whose
    norm was above 5 times the median of the 64 before it. own_samples: that this process trained
    on, of an epoch that it shares with others.
    """

    epoch: int
    num_samples: int
    num_updates: int
    first_update: int
    mean_loss: float
    accuracy: float | None
    observations: Columns
    updates: Mapping[str, npt.NDArray[np.float64]]
    num_skipped: int = 0
    num_spikes: int = 0
    clip_rate: float = math.nan
    own_samples: int = 0


def train_epoch(
    state: TrainingState,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    epoch: int,
    num_updates: int | None = None,
    updates_per_epoch: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_phase: Callable[[Phase], None] = to_nobody,
    resume: MidEpochState | None = None,
    group: Group | None = None,
) -> EpochResult:
    """Trains `state` for one epoch, in place.

    epoch: its number, from 0. num_updates: that the batches lead to, the part before `resume`
    included; none: `batches.num_updates`, as those of `as_batches` have it. updates_per_epoch: what
    the rate goes by in an epoch that is cut short; none: num_updates. on_progress: called after
    each micro-step. on_phase: called with what the loop turns to: `data`, `forward_backward` and,
    where an update ends, `optimizer`; in a group `communication` before that. resume: goes on from
    there, with the state as it was then and `batches` from that micro-step on. group: of the
    processes that each train on their own of an update's batches, as `train_batches` gives them by
    `own`; all end with the state that one would. The first of them knows the observations then,
    the others only the updates.

    Raises NonFinite, TargetError for what a step may not give, TrainingFailed where the batches
    lead to another number of updates, and what the user's code raises; the state is then of no use.
    """
    num_updates = _num_updates(batches) if num_updates is None else num_updates
    updates_per_epoch = updates_per_epoch or num_updates
    frozen, validation = recipe.frozen(epoch), recipe.validation
    freeze(state, frozen)
    gradients = Gradients(state, recipe.gradients, group)
    progress = _start(
        state,
        gradients,
        recipe,
        epoch=epoch,
        num_updates=num_updates,
        resume=resume,
        group=group,
    )
    first_update = state.updates_tried - progress.updates + 1
    set_training_mode(state, frozen)
    if validation is not None:
        validation.when_due(progress)  # where a resume goes on before it was measured
    with (
        borrowed_generators(state.device) as reseed,
        annealed(state.model, recipe.momentum) as anneal,
        in_order(state.model, dealt=recipe.gradients.shards > 1) as statistics,
    ):
        work = _Work(recipe, progress, gradients, statistics)
        for batch in announced(batches, on_phase):
            at = epoch + (progress.updates + 0.5) / updates_per_epoch
            anneal(at)
            if batch.num_samples:
                reseed(seed_64(recipe.seed, "step", epoch, batch.index))
                work.micro_batch(batch)
            progress.took(batch)
            if batch.window.last:
                if group is not None:
                    group.sit_out(batch.window.count)
                on_phase(OPTIMIZER if group is None else COMMUNICATION)
                work.end_update(batch.window, at, on_phase)
                if progress.updates % READ_EVERY == 0:
                    progress.check_finite()
                if validation is not None:
                    validation.when_due(progress)
            if on_progress is not None:
                on_progress(progress)
    progress.gather()
    _put_down(state)
    return _result(progress, first_update=first_update)


class _Work:
    """What an epoch does with a micro-batch, and at the end of an update."""

    def __init__(
        self,
        recipe: Recipe,
        progress: Progress,
        gradients: Gradients,
        statistics: RunningStatistics | None,
    ) -> None:
        self._recipe = recipe
        self._progress = progress
        self._gradients = gradients
        self._statistics = statistics
        state = self._state = progress.state
        self._device = state.device
        self._precision = Precision(recipe.precision, state.device)
        self._mixer = None
        if recipe.mixing is not None:
            self._mixer = Mixer(recipe.mixing, seed=recipe.seed, epoch=progress.epoch)
        self._further_rates = tuple(state.further_rates.values())
        self._shared = None
        if progress.group is not None:
            assert statistics is not None, "only updates with shards have several processes"
            self._shared = SharedUpdate(progress.group, state, statistics)

    def micro_batch(self, batch: Batch) -> None:
        """Forward and backward pass."""
        progress, num_samples = self._progress, batch.num_samples
        data = self._placed(batch)
        if self._shared is not None:
            self._shared.begin_micro_batch()
        with self._precision.autocast():
            output = check_output(
                self._recipe.step(self._state.module, data), num_samples=num_samples
            )
        self._gradients.begin_micro_batch(batch.window)
        loss_weights = progress.loss_weights
        share = loss_weights.backward(output, batch)
        if progress.group is not None:
            progress.group.end_turn()
        parts = (output.parts or {}).items()
        shares = {name: loss_weights.of(part.detach(), output, batch) for name, part in parts}
        if self._shared is None:
            progress.recorder.add_loss(share, shares)
        else:
            self._shared.took(share, shares)
        target = target_of(data) if output.target is None else output.target
        progress.observer.take(batch.sample_ids_B, output, target, index=batch.index)

    def end_update(self, window: Window, at: float, on_phase: Callable[[Phase], None]) -> None:
        """The optimizer's step. at: the fractional epoch."""
        progress, recorder = self._progress, self._progress.recorder
        kinds: list[str] = []
        if self._shared is not None:
            own = self._gradients.end_shards(window)
            kinds = self._shared.meet(window, own, recorder, progress.loss_weights)
            self._gradients.sum(window, kinds)
            on_phase(OPTIMIZER)
        factor = self._recipe.rate(at)
        self._state.set_rate_factor(factor)
        if self._statistics is not None:
            self._statistics.apply()
        correction = progress.loss_weights.end()
        recorder.end_update(
            self._gradients.update(recorder.loss, window, correction=correction, kinds=kinds),
            rate=self._state.base_rates[0] * factor,
            further=[base * factor for base in self._further_rates],
            correction=correction,
        )
        progress.updates += 1
        progress.update_ends.append(progress.rows)

    def _placed(self, batch: Batch) -> Any:
        """The data as the step gets it: resized, mixed, on the device."""
        data = batch.data
        if batch.size_HW is not None:
            data = resized(to_device(data, self._device), batch.size_HW)
        if self._mixer is not None:
            data = self._mixer(to_device(data, self._device), batch.sample_ids_B, batch.repeats_B)
        return self._precision.place(data)


def _num_updates(batches: Iterable[Batch]) -> int:
    try:
        number: int = batches.num_updates  # type: ignore[attr-defined]  # told below if it is not
    except AttributeError as error:
        raise TargetError(
            f"train_epoch: a {type(batches).__name__} does not tell how many updates it leads to; "
            "give num_updates, or batches of `as_batches`"
        ) from error
    return number


def _start(
    state: TrainingState,
    gradients: Gradients,
    recipe: Recipe,
    *,
    epoch: int,
    num_updates: int,
    resume: MidEpochState | None,
    group: Group | None,
) -> Progress:
    recorder = new_recorder(state, gradients, recipe.gradients)
    observer = Observer(getattr(recipe.step, "ignore_index", None))
    to_train(state.optimizer)
    gradients.begin()
    progress = Progress(
        state,
        epoch,
        num_updates,
        recorder=recorder,
        observer=observer,
        loss_weights=LossWeights(state.device, state.scaler, dealt=recipe.gradients.shards > 1),
        group=group,
    )
    if resume is None:
        return progress
    progress.validations = validations_of(resume.metrics)
    recorder.restore(
        without_validations(resume.metrics), partial_loss=resume.partial_loss, device=state.device
    )
    if group is None or group.first:
        observer.restore(resume.observations)
    progress.loss_weights.restore(resume.denominators)
    named = state.named_parameters()
    for name, gradient in resume.gradients.items():
        named[name].grad = gradient.to(named[name].device, copy=True)
    progress.micro_steps, progress.updates = resume.micro_steps, resume.updates
    progress.update_ends = list(resume.update_ends)
    progress.rows = len(resume.observations["sample_id"])
    return progress


def _put_down(state: TrainingState) -> None:
    """What held for the epoch alone ends, so that a checkpoint's bytes do not depend on it."""
    freeze(state, ())
    to_evaluate(state.optimizer)
    state.set_rate_factor(1.0)


def _result(progress: Progress, *, first_update: int) -> EpochResult:
    if progress.updates != progress.num_updates:
        raise TrainingFailed(
            f"epoch {progress.epoch}: the batches led to {progress.updates} updates, expected "
            f"{progress.num_updates}"
        )
    observations, updates = progress.observer.columns(), progress.columns()
    if progress.group is not None and not progress.group.first:
        return EpochResult(
            epoch=progress.epoch,
            num_samples=progress.rows,
            num_updates=progress.updates,
            first_update=first_update,
            mean_loss=math.nan,
            accuracy=None,
            observations=observations,
            updates=updates,
            own_samples=progress.own_rows,
        )
    mean_loss = mean_of(observations)
    if math.isnan(mean_loss) and progress.updates:  # one loss per batch: from the updates
        starts_U = [0, *progress.update_ends[:-1]]
        sizes_U = np.add.reduceat(denominators_of(observations), starts_U)
        if sizes_U.any():
            mean_loss = float(np.average(updates[LOSS], weights=sizes_U))
    labelled_N = observations["label"] >= 0
    skipped_U = updates.get(SKIPPED, np.zeros(progress.updates)) > 0
    clipped_U = updates[CLIPPED] < updates[NORM]
    return EpochResult(
        epoch=progress.epoch,
        num_samples=progress.rows,
        num_updates=progress.updates,
        first_update=first_update,
        mean_loss=mean_loss,
        accuracy=float(observations["correct"][labelled_N].mean()) if labelled_N.any() else None,
        observations=observations,
        updates=updates,
        num_skipped=int(skipped_U.sum()),
        num_spikes=int(spikes(updates[NORM]).sum()),
        clip_rate=float(clipped_U[~skipped_U].mean()) if (~skipped_U).any() else math.nan,
        own_samples=progress.own_rows,
    )


def spikes(norm_U: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which norms are above 5 times the median of the 64 before them, of at least 16.

    Those that are not finite neither count nor are counted.
    """
    finite_U = np.isfinite(norm_U)
    norm_F = norm_U[finite_U]
    padded = np.concatenate([np.full(SPIKE_WINDOW, np.nan), norm_F])
    before_F64 = np.lib.stride_tricks.sliding_window_view(padded, SPIKE_WINDOW)
    median_F = np.full(len(norm_F), np.inf)
    for start in range(SPIKE_LEAST, len(norm_F), SPIKE_BLOCK):
        block = slice(start, min(start + SPIKE_BLOCK, len(norm_F)))
        median_F[block] = np.nanmedian(before_F64[block], axis=1)
    is_spike_U = np.zeros(len(norm_U), dtype=bool)
    is_spike_U[finite_U] = norm_F > SPIKE_FACTOR * median_F
    return is_spike_U


def updates_table(result: EpochResult) -> dict[str, npt.NDArray[Any]]:
    """The step metrics in long form: `step` int64, `key`, `value` float64; key by key."""
    return in_long_form(result.updates, first_update=result.first_update)
