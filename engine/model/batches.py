"""What a batch holds: its input, its target, and all of its tensors on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from epochal.data.errors import TargetError

_TARGET_NAMES = ("target", "label", "labels")
_INPUT_NAMES = ("input", "inputs", "image", "images")
_PAIR = 2


def split_batch(batch: Any) -> tuple[Any, Any]:
    """Input and target of a batch. Raises TargetError if it is not of a form that has them."""
    if isinstance(batch, tuple | list):
        if len(batch) == _PAIR:
            return batch[0], batch[1]
        form = f"{len(batch)} parts"
    elif isinstance(batch, Mapping):
        name = input_name(batch)
        given = None if name is None else batch[name]
        target = target_of(batch)
        if given is not None and target is not None:
            return given, target
        form = f"a dict of {', '.join(map(str, batch))}"
    else:
        form = f"a {type(batch).__name__}"
    raise TargetError(
        f"the default step takes items (input, target) or {{input: …, target: …}}, found {form}; "
        "say which by `batch: {input: …, target: …}`, or give a `step:` that knows these batches"
    )


def input_name(batch: Mapping[str, Any]) -> str | None:
    """What a batch's input is called in it, or None if it is not to be told."""
    return next((name for name in _INPUT_NAMES if name in batch), None)


def target_of(batch: Any) -> Any:
    """What a batch's outputs are measured against, or None if it is not to be told."""
    if isinstance(batch, tuple | list):
        return batch[1] if len(batch) >= _PAIR else None
    if isinstance(batch, Mapping):
        return next((batch[name] for name in _TARGET_NAMES if name in batch), None)
    return None


def without_ignored(target: Any, ignore_index: int | None) -> Any:
    """Class indices with −1, which counts nowhere, in place of those that the loss ignores.

    Targets of other kinds are given as they are, and so are all where that index is below 0.
    """
    indices = isinstance(target, Tensor) and not target.is_floating_point()
    if not indices or ignore_index is None or ignore_index < 0:
        return target
    return torch.where(target == ignore_index, -1, target)


def described(value: Any) -> str:
    """A value as an error names it: a tensor by its type and shape."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def to_device(data: Any, device: torch.device) -> Any:
    """`data` with every tensor on `device`, inside tuples, lists and dicts."""
    if type(data) is tuple:  # the usual batch, already there: no copy of the tuple
        for item in data:
            if type(item) is not Tensor or item.device != device:
                break
        else:
            return data
    if isinstance(data, Tensor):
        return data if data.device == device else data.to(device, non_blocking=True)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(to_device(item, device) for item in data))
    if isinstance(data, tuple | list):
        return type(data)(to_device(item, device) for item in data)
    if isinstance(data, Mapping):
        return {name: to_device(item, device) for name, item in data.items()}
    return data
