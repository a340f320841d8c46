"""Numbers: state, step, epoch, gradients, schedules; checkpoints on disk. No network, no clock.

    from epochal.engine import Recipe, TrainingState, train_epoch, validate_epoch
    from epochal.engine import as_batches, metrics_of, supervised_step

These are looked up when they are asked for: config and schedules need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.lazy import lazy_names

__all__ = [
    "Batch",
    "BatchNormConfig",
    "EmaConfig",
    "EpochResult",
    "GradientsConfig",
    "MetricsConfig",
    "MidEpochState",
    "MidEpochValidation",
    "MixedBatch",
    "MixingConfig",
    "OptimizerConfig",
    "PrecisionConfig",
    "Progress",
    "Recipe",
    "Step",
    "StepOutput",
    "TrainingState",
    "ValidationResult",
    "WeightAverage",
    "Window",
    "as_batches",
    "load_checkpoint",
    "metrics_of",
    "save_checkpoint",
    "supervised_step",
    "train_epoch",
    "updates_table",
    "validate_epoch",
]

if TYPE_CHECKING:
    from epochal.data.types import Batch, Window
    from epochal.engine.checkpoint.folder import load_checkpoint, save_checkpoint
    from epochal.engine.config import (
        BatchNormConfig,
        EmaConfig,
        GradientsConfig,
        MetricsConfig,
        MixingConfig,
        OptimizerConfig,
        PrecisionConfig,
    )
    from epochal.engine.library import as_batches, metrics_of, supervised_step
    from epochal.engine.loop.epoch import EpochResult, Recipe, train_epoch, updates_table
    from epochal.engine.loop.evaluate import ValidationResult, validate_epoch
    from epochal.engine.loop.mixing import MixedBatch
    from epochal.engine.loop.progress import MidEpochState, MidEpochValidation, Progress
    from epochal.engine.model.ema import WeightAverage
    from epochal.engine.model.state import TrainingState
    from epochal.engine.model.step import Step, StepOutput
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "epochal.data.types": ("Batch", "Window"),
            "epochal.engine.checkpoint.folder": ("load_checkpoint", "save_checkpoint"),
            "epochal.engine.config": (
                "BatchNormConfig",
                "EmaConfig",
                "GradientsConfig",
                "MetricsConfig",
                "MixingConfig",
                "OptimizerConfig",
                "PrecisionConfig",
            ),
            "epochal.engine.library": ("as_batches", "metrics_of", "supervised_step"),
            "epochal.engine.loop.epoch": (
                "EpochResult",
                "Recipe",
                "train_epoch",
                "updates_table",
            ),
            "epochal.engine.loop.evaluate": ("ValidationResult", "validate_epoch"),
            "epochal.engine.loop.mixing": ("MixedBatch",),
            "epochal.engine.loop.progress": ("MidEpochState", "MidEpochValidation", "Progress"),
            "epochal.engine.model.ema": ("WeightAverage",),
            "epochal.engine.model.state": ("TrainingState",),
            "epochal.engine.model.step": ("Step", "StepOutput"),
        },
    )
