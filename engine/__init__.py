"""Numbers: state, step, epoch, gradients, schedules. No files, no network, no clock.

    from epochal.engine import StepOutput, TrainingState, train_epoch, validate_epoch
    from epochal.engine import as_batches, metrics_of, supervised_step

These are looked up when they are asked for: config and schedules need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epochal.engine.epoch import EpochResult, train_epoch
    from epochal.engine.simple import as_batches, metrics_of, supervised_step
    from epochal.engine.state import TrainingState
    from epochal.engine.step import StepOutput
    from epochal.engine.validate import ValidationResult, validate_epoch

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
    "EpochResult": "epoch",
    "StepOutput": "step",
    "TrainingState": "state",
    "ValidationResult": "validate",
    "as_batches": "simple",
    "metrics_of": "simple",
    "supervised_step": "simple",
    "train_epoch": "epoch",
    "validate_epoch": "validate",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
