"""The former name of `epochal.engine.checkpoint.serialize`; see `epochal.engine`."""

from epochal.engine.checkpoint.serialize import (
    StateParts,
    load_model_tensors,
    load_state,
    load_tensors,
    split_state,
)

__all__ = ["StateParts", "load_model_tensors", "load_state", "load_tensors", "split_state"]
