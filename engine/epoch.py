"""The epoch loop: batches in, updates of the state, what they left behind out.

No files, no network, no clock: who wants to show or keep something in between is called after
every micro-step and asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.errors import NonFinite, TargetError, TrainingFailed
from epochal.data.types import Batch, seed_64
from epochal.engine.config import GradientsConfig
from epochal.engine.gradients import Gradients
from epochal.engine.observe import Columns, Observer
from epochal.engine.randomness import borrowed_generators
from epochal.engine.recorder import LOSS, NORM, READ_EVERY, UpdateRecorder
from epochal.engine.state import TrainingState
from epochal.engine.step import Step, StepOutput, check_output, target_of, to_device

# B samples of a micro-batch, N of the epoch, U updates of the epoch

MAX_NAMED_SAMPLES = 10
_HALF = {torch.float16, torch.bfloat16}


@dataclass(frozen=True)
class EpochResult:
    """What an epoch of training gave.

    mean_loss: over the samples; NaN where the loss is not per sample and there was no update.
    accuracy: share of right predictions in training mode, or None without classes.
    observations: column → array of shape (N,), in order of training.
    updates: metric → float64 of shape (U,). first_update: its number over the run, from 1.
    """

    epoch: int
    num_samples: int
    num_updates: int
    first_update: int
    mean_loss: float
    accuracy: float | None
    observations: Columns
    updates: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class LiveMetrics:
    """The last finished update. update: of this epoch, counted from 1."""

    update: int
    loss: float
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class PartialEpoch:
    """An epoch up to a micro-step, beside the state: all that `train_epoch` needs to go on.

    micro_steps, updates: done in this epoch. gradients: parameter → gradient of the update under
    way. update_ends: samples trained on by the end of each update.
    """

    micro_steps: int
    updates: int
    gradients: Mapping[str, Tensor]
    partial_loss: float | None
    metrics: Mapping[str, npt.NDArray[np.float64]]
    observations: Columns
    update_ends: tuple[int, ...]


@dataclass
class Progress:
    """An epoch at work, as `on_progress` sees it after each micro-step; valid during the call."""

    state: TrainingState
    epoch: int
    num_updates: int
    micro_steps: int = 0
    updates: int = 0
    rows: int = 0
    update_ends: list[int] = field(default_factory=list)
    recorder: UpdateRecorder = field(repr=False, kw_only=True)
    observer: Observer = field(repr=False, kw_only=True)

    def live(self) -> LiveMetrics | None:
        """The last update's numbers, or None before the first; waits for the device.

        Raises NonFinite.
        """
        self.check_finite()
        last = self.recorder.last
        if last is None:
            return None
        return LiveMetrics(self.updates, last.loss, last.learning_rate, last.gradient_norm)

    def capture(self) -> PartialEpoch:
        """What must be kept beside the state to go on from here. Raises NonFinite."""
        self.check_finite()
        gradients = {
            name: parameter.grad
            for name, parameter in self.state.named_parameters().items()
            if parameter.grad is not None
        }
        return PartialEpoch(
            micro_steps=self.micro_steps,
            updates=self.updates,
            gradients=gradients,
            partial_loss=self.recorder.partial_loss(),
            metrics=self.recorder.columns(),
            observations=self.observer.columns(),
            update_ends=tuple(self.update_ends),
        )

    def check_finite(self) -> None:
        """Raises NonFinite if an update so far had a loss or norm that is NaN or infinite."""
        self.recorder.read()
        update = self.recorder.first_non_finite
        if update is None:
            return
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
            "learning rate or use gradients.clip_norm"
        )


def train_epoch(
    state: TrainingState,
    batches: Iterable[Batch],
    *,
    epoch: int,
    num_updates: int,
    step: Step,
    gradients: GradientsConfig,
    rate: Callable[[float], float],
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
    resume: PartialEpoch | None = None,
) -> EpochResult:
    """Trains `state` for one epoch, in place.

    num_updates: that `batches` lead to, the part before `resume` included. rate: factor of the
    base learning rate at a fractional epoch. seed: the run's; every micro-step's random numbers
    follow from it, the epoch and the micro-step's index. resume: goes on from there, with the
    state as it was then and `batches` from that micro-step on.

    Raises NonFinite, TargetError for what a step may not give, and what the user's code raises;
    the state is then of no use.
    """
    grads = Gradients(state, gradients)
    progress = _start(state, grads, epoch=epoch, num_updates=num_updates, resume=resume)
    recorder, observer, device = progress.recorder, progress.observer, state.device
    first_update = state.updates_done - progress.updates + 1
    state.model.train()
    with borrowed_generators(device) as reseed:
        for batch in batches:
            reseed(seed_64(seed, "step", epoch, batch.index))
            data = to_device(batch.data, device)
            size, window = batch.num_samples, batch.window
            output = check_output(step(state.model, data), num_samples=size)
            loss = _share(output, batch, device=device)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            recorder.add_loss(loss.detach())
            target = target_of(data) if output.target is None else output.target
            observer.take(batch.sample_ids_B, output, target)
            progress.micro_steps += 1
            progress.rows += size
            if window.last:
                factor = rate(epoch + (progress.updates + 0.5) / num_updates)
                state.set_rate_factor(factor)
                recorder.end_update(grads.update(), rate=state.base_rates[0] * factor)
                if state.ema is not None:
                    state.ema.update(state.updates_done)
                progress.updates += 1
                progress.update_ends.append(progress.rows)
                if progress.updates % READ_EVERY == 0:
                    progress.check_finite()
            if on_progress is not None:
                on_progress(progress)
    if progress.updates != num_updates:
        raise TrainingFailed(
            f"epoch {epoch}: the batches led to {progress.updates} updates, expected {num_updates}"
        )
    state.set_rate_factor(1.0)  # a checkpoint's bytes do not depend on the schedule's last value
    progress.check_finite()
    return _result(progress, first_update=first_update)


def _start(
    state: TrainingState,
    grads: Gradients,
    *,
    epoch: int,
    num_updates: int,
    resume: PartialEpoch | None,
) -> Progress:
    recorder, observer = UpdateRecorder(grads.groups, grads.group_of_P), Observer()
    grads.zero()
    progress = Progress(state, epoch, num_updates, recorder=recorder, observer=observer)
    if resume is None:
        return progress
    recorder.restore(resume.metrics, partial_loss=resume.partial_loss, device=state.device)
    observer.restore(resume.observations)
    named = state.named_parameters()
    for name, gradient in resume.gradients.items():
        named[name].grad = gradient.to(named[name].device, copy=True)
    progress.micro_steps, progress.updates = resume.micro_steps, resume.updates
    progress.update_ends = list(resume.update_ends)
    progress.rows = len(resume.observations["sample_id"])
    return progress


def _share(output: StepOutput, batch: Batch, *, device: torch.device) -> Tensor:
    """The micro-batch's part of its update's loss: shares add up to the mean over its samples."""
    loss_B, num_samples = output.loss_B, batch.window.num_samples
    if loss_B.dtype in _HALF:
        loss_B = loss_B.float()
    if not loss_B.requires_grad:
        raise TargetError(
            "step: its loss does not depend on the model's parameters; was it detached, or are "
            "all of them frozen?"
        )
    if loss_B.ndim == 0:
        assert batch.weights_B is None, "weights need one loss per sample"
        return loss_B if num_samples == batch.num_samples else loss_B * _part(batch)
    if batch.weights_B is not None:
        return (loss_B * batch.weights_B.to(device)).sum() / num_samples
    if num_samples == batch.num_samples:
        return loss_B.mean()
    return loss_B.sum() / num_samples


def _part(batch: Batch) -> float:
    return batch.num_samples / batch.window.num_samples


def _result(progress: Progress, *, first_update: int) -> EpochResult:
    observations, updates = progress.observer.columns(), progress.recorder.columns()
    losses_N = observations["loss"].astype(np.float64)
    mean_loss = float(losses_N.mean()) if len(losses_N) else math.nan
    if math.isnan(mean_loss) and progress.updates:  # one loss per batch: from the updates
        sizes_U = np.diff([0, *progress.update_ends])
        mean_loss = float(np.average(updates[LOSS], weights=sizes_U))
    labelled_N = observations["label"] >= 0
    return EpochResult(
        epoch=progress.epoch,
        num_samples=progress.rows,
        num_updates=progress.updates,
        first_update=first_update,
        mean_loss=mean_loss,
        accuracy=float(observations["correct"][labelled_N].mean()) if labelled_N.any() else None,
        observations=observations,
        updates=updates,
    )


def updates_table(result: EpochResult) -> dict[str, npt.NDArray[Any]]:
    """The step metrics in long form: `step` int64, `key`, `value` float64; key by key."""
    step_U = np.arange(result.num_updates, dtype=np.int64) + result.first_update
    names = list(result.updates)
    return {
        "step": np.tile(step_U, len(names)),
        "key": np.repeat(np.array(names, dtype=object), result.num_updates),
        "value": np.concatenate([result.updates[name] for name in names]),
    }
