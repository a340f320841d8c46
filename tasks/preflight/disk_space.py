"""Whether the disk has room for what a run will write, before it starts.

A full disk in the middle of the night costs hours, and can be known beforehand: the size of a
checkpoint follows from the model and the optimizer.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import PreflightFailed
from epochal.data.stage_store.mid_epoch import KEEP
from epochal.data.store.addresses import local_folder, scheme_of
from epochal.tasks.config.run import RunConfig

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from epochal.engine.model.state import TrainingState

USUAL_MOMENTS = 2.0
"""Bytes of an optimizer's state for each byte of weights, where it cannot be tried: as Adam's."""
TABLE_BYTES_PER_SAMPLE = 24
"""What the tables of one epoch take of each sample, compressed."""


@dataclass(frozen=True)
class CheckpointSize:
    """Bytes of one checkpoint. gradients: what a commit in the middle of an update has more."""

    model: int
    optimizer: int
    gradients: int

    @property
    def total(self) -> int:
        """Bytes of the checkpoint at an epoch's end."""
        return self.model + self.optimizer

    def __str__(self) -> str:
        return (
            f"{self.total:,} bytes (weights and buffers {self.model:,}, "
            f"optimizer {self.optimizer:,})"
        )


def checkpoint_size(state: TrainingState, *, accumulate: int) -> CheckpointSize:
    """The size of a checkpoint of this state, the optimizer's moments included."""
    import torch

    from epochal.engine.checkpoint.serialize import split_state

    parts = split_state(state)
    sizes = {
        part.name: sum(
            tensor.nbytes for tensor in tensors.values() if isinstance(tensor, torch.Tensor)
        )
        for part in fields(parts)
        if isinstance(tensors := getattr(parts, part.name), dict)
    }
    held = sizes.pop("optimizer")
    trained = sum(parameter.nbytes for parameter in state.named_parameters().values())
    moments = trained * _moments(state.optimizer, device=state.device)
    return CheckpointSize(
        model=sum(sizes.values()),
        optimizer=max(held, round(moments)),
        gradients=trained if accumulate > 1 else 0,
    )


def _moments(optimizer: Optimizer, *, device: Any) -> float:
    """Bytes of state for each byte of weights: of torch's own optimizers found by one step.

    The step is taken by a copy of the optimizer, on a small tensor. Optimizers that are not torch's
    own may not allow a copy.
    """
    import torch

    if not type(optimizer).__module__.startswith("torch.optim"):
        return USUAL_MOMENTS
    trial = copy(optimizer)
    sample = torch.zeros(64, 64, device=device, requires_grad=True)
    sample.grad = torch.zeros_like(sample)
    trial.state = defaultdict(dict)
    trial.param_groups = [{**optimizer.param_groups[0], "params": [sample]}]
    try:
        trial.step()
    except (TypeError, ValueError, RuntimeError, ArithmeticError):  # a closure, another shape
        return USUAL_MOMENTS
    slots = trial.state[sample].values()
    return sum(slot.nbytes for slot in slots if isinstance(slot, torch.Tensor)) / sample.nbytes


def check_space(
    config: RunConfig,
    size: CheckpointSize,
    *,
    store_url: str,
    epochs: int,
    num_samples: int,
    notice: Callable[[str], None],
) -> None:
    """Notices what will not fit. size: of one checkpoint.

    epochs: how many are still to be trained; num_samples: of one.

    Raises PreflightFailed if there is no room for the next two checkpoints of a local store, or to
    write one before it is uploaded.
    """
    if not epochs:
        return
    if scheme_of(store_url) != "file":
        _check_scratch(size)
        return
    folder = _existing(local_folder(store_url))
    free = shutil.disk_usage(folder).free
    if 2 * size.total > free:
        raise PreflightFailed(
            f"store: the next two checkpoints need {2 * size.total:,} bytes, {size} each; the disk "
            f"of {folder} has {free:,} bytes free: free some space there, or name another store"
        )
    tables = TABLE_BYTES_PER_SAMPLE * num_samples
    whole = epochs * (size.total + tables) + KEEP * (size.total + size.gradients + tables)
    if whole > free:
        notice(
            f"the disk of {folder} has {free:,} bytes free, and the {epochs} epochs to come may "
            f"need {whole:,}: {size} for each. {_how_to_go_on(config, epochs)}"
        )


def _how_to_go_on(config: RunConfig, epochs: int) -> str:
    checkpoint = config.checkpoint
    if checkpoint.keep_last is None:
        return (
            "The run stops when the disk is full, and goes on once there is room; with "
            "checkpoint.keep_last set, `epochal gc` frees what is older"
        )
    kept = min(epochs, checkpoint.keep_last + checkpoint.keep_best)
    return f"`epochal gc --yes` thins them to {kept}, also while the run is at work"


def _check_scratch(size: CheckpointSize) -> None:
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    needed = size.total + size.gradients
    if needed > free:
        raise PreflightFailed(
            f"TMPDIR: a checkpoint is written to {folder} before it is uploaded and needs "
            f"{needed:,} bytes, which has {free:,} bytes free; set TMPDIR to a larger place"
        )


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
