"""Numbers: state, step, epoch, gradients, schedules. No files, no network, no clock.

    from epochal.engine import StepOutput, TrainingState, train_epoch, validate_epoch
    from epochal.engine import as_batches, metrics_of, supervised_step

These are looked up when they are asked for: config and schedules need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "EpochResult": "loop.epoch",
    "StepOutput": "model.step",
    "TrainingState": "model.state",
    "ValidationResult": "loop.evaluate",
    "as_batches": "library",
    "metrics_of": "library",
    "supervised_step": "library",
    "train_epoch": "loop.epoch",
    "validate_epoch": "loop.evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
