"""Numbers: state, step, epoch, gradients, schedules. No files, no network, no clock.

    from epochal.engine import StepOutput, TrainingState, train_epoch, validate_epoch
    from epochal.engine import as_batches, metrics_of, supervised_step

These are looked up when they are asked for: config and schedules need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

if TYPE_CHECKING:
    from epochal.engine.library import as_batches, metrics_of, supervised_step
    from epochal.engine.loop.epoch import EpochResult, train_epoch
    from epochal.engine.loop.evaluate import ValidationResult, validate_epoch
    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import StepOutput

__all__ = [
    "EpochResult",
    "StepOutput",
    "TrainingState",
    "ValidationResult",
    "as_batches",
    "metrics_of",
    "supervised_step",
    "train_epoch",
    "validate_epoch",
]

__getattr__ = lazy_names(
    __name__,
    {
        "EpochResult": "epochal.engine.loop.epoch",
        "StepOutput": "epochal.engine.model.step",
        "TrainingState": "epochal.engine.model.state",
        "ValidationResult": "epochal.engine.loop.evaluate",
        "as_batches": "epochal.engine.library",
        "metrics_of": "epochal.engine.library",
        "supervised_step": "epochal.engine.library",
        "train_epoch": "epochal.engine.loop.epoch",
        "validate_epoch": "epochal.engine.loop.evaluate",
    },
)
