"""The former name of `epochal.engine.model.step` and `.batches`; see `epochal.engine`."""

from epochal.engine.model.batches import split_batch, target_of, to_device
from epochal.engine.model.step import DefaultStep, Step, StepOutput

__all__ = ["DefaultStep", "Step", "StepOutput", "split_batch", "target_of", "to_device"]
