"""What to do about outputs and targets that a loss or a metric does not take. Shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from epochal.engine.model.batches import described

# B samples of a batch, C classes; … further dimensions

STEP_PAGE = "docs/step.md"
_IMAGES = 4  # dimensions of a batch of them
_SEQUENCE = 3  # dimensions of logits of sequences
_MAX_CHANNELS = 4  # grey, grey and alpha, RGB, RGB and alpha


def of_input(given: Any, model: nn.Module) -> str:
    """Advice for a model that does not take `given`; empty where there is none."""
    if not isinstance(given, Tensor):
        return ""
    weights = next((one.dtype for one in model.parameters() if one.is_floating_point()), None)
    if weights is not None and given.is_floating_point() and given.dtype != weights:
        return (
            f"the items are {given.dtype}, the weights {weights}: convert the items in the data set"
        )
    shape = tuple(given.shape)
    if len(shape) == _IMAGES and shape[-1] <= _MAX_CHANNELS < shape[1]:
        return (
            f"images of shape {shape} have their channels last, torch's layers want (B, C, H, W): "
            "give items image.permute(2, 0, 1)"
        )
    if weights is not None and not given.is_floating_point() and not _has_embedding(model):
        cure = f"the items are {given.dtype}: give them as {weights}, images divided by 255"
        if given.dtype == torch.uint8 and len(shape) == _IMAGES:
            cure += ", or `augment: {train: [{kind: to_float}], validation: [{kind: to_float}]}`"
        return cure
    return ""


def _has_embedding(model: nn.Module) -> bool:
    return any(isinstance(one, nn.Embedding | nn.EmbeddingBag) for one in model.modules())


def of_loss(outputs: Any, target: Any) -> str:
    """Advice for a loss that does not take these; empty where there is none."""
    if not isinstance(outputs, Tensor):
        parts = "logits" if hasattr(outputs, "logits") else "the part that is trained on"
        return (
            f"the model gives {_kind(outputs)}, the default step hands on what it gives: use a "
            f"`step:` that takes {parts} out of it ({STEP_PAGE})"
        )
    if not isinstance(target, Tensor):
        return f"targets are {described(target)}: use a `step:` that knows them ({STEP_PAGE})"
    return _of_shapes(outputs, target) or _of_type(outputs, target)


def _of_shapes(outputs: Tensor, target: Tensor) -> str:
    shape, wanted = tuple(outputs.shape), tuple(target.shape)
    whole = not target.is_floating_point()
    if whole and len(shape) >= _SEQUENCE and shape[:-1] == wanted:
        cure = "transpose(1, 2)" if len(shape) == _SEQUENCE else "movedim(-1, 1)"
        return (
            f"logits of shape {shape} have their classes last, torch's losses want (B, C, …): "
            f"return logits.{cure} from the model"
        )
    if shape == (*wanted, 1):
        return f"return outputs.squeeze({len(wanted)}) from the model: one number for each target"
    if wanted == (shape[0], 1):
        return "give targets without that dimension of 1: target.squeeze(-1) in the data set"
    if whole and shape == wanted:
        return (
            "targets that are no classes but numbers for each output, such as one-hot rows, are to "
            "be floats: target.float() in the data set; or give classes, target.argmax(-1)"
        )
    return ""


def _of_type(outputs: Tensor, target: Tensor) -> str:
    if target.ndim != outputs.ndim - 1 or target.dtype == torch.int64:
        return ""
    if not target.is_floating_point() or bool((target == target.round()).all()):
        return f"classes are to be torch.int64, found {target.dtype}: target.long() in the data set"
    return ""


def of_metric(metric: Any, outputs: Any, target: Any) -> str:
    """Advice for a metric that does not take these; empty where there is none."""
    if not isinstance(outputs, Tensor):
        return (
            f"outputs are {_kind(outputs)}: use a `step:` that returns what metrics measure as "
            f"`outputs`, or a metric of yours that takes it out ({STEP_PAGE})"
        )
    if not isinstance(target, Tensor):
        return ""
    are_logits = outputs.ndim == target.ndim + 1 and outputs.is_floating_point()
    if getattr(metric, "input_format", "mixed") != "mixed" and are_logits:
        return (
            "outputs are logits (B, C, …), targets classes (B, …): give it args "
            "{input_format: mixed}, which takes the argmax over the classes"
        )
    if are_logits:
        return (
            "if it wants classes and not logits, use a metric of yours that updates it with "
            f"outputs.argmax(1) ({STEP_PAGE})"
        )
    if target.is_floating_point() and bool((target == target.round()).all()):
        return (
            "targets are whole numbers in floats: give them as int64 in the data set; losses of "
            "torch.nn between numbers take these too"
        )
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, Mapping) and type(value) is dict:
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
