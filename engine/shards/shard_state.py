"""A training state cut into slices, of which a process keeps its own: weights, optimizer, average.

What cannot be computed in slices, to the bits of a whole, is refused here.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.engine.model.state import Slice, TrainingState
from epochal.engine.shards.exchange import Exchange
from epochal.engine.shards.model_shards import ModelShards

EACH_BY_ITSELF = frozenset(
    {
        *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam),
        *(torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta),
        *(torch.optim.Adamax, torch.optim.ASGD, torch.optim.Rprop),
    }
)
"""Optimizers that change each number by what belongs to it alone, and round alike in slices."""


def shard_state(
    state: TrainingState,
    exchange: Exchange,
    *,
    device: torch.device,
    shards: int,
    class_names: Collection[str] = (),
) -> ModelShards:
    """Leaves this process its slices of the state: of weights, optimizer and average, in place.

    The state is one as it was built, before its first update, with the model in the host's memory;
    its blocks go to `device` one by one. Its `named_parameters()` are slices then.

    Raises TargetError for what cannot be computed in slices, to the bits of a whole.
    """
    _check_state(state)
    model, optimizer = state.model, state.optimizer
    before = {name: weakref.ref(one) for name, one in model.named_parameters()}
    found = ModelShards(model, exchange, device=device, shards=shards, class_names=class_names)
    state.slices = found.slices
    for group, names in zip(optimizer.param_groups, state.parameter_names, strict=True):
        replaced = [found.parameters[name] for name in names]
        for old, new, name in zip(group["params"], replaced, names, strict=True):
            if old in optimizer.state:  # what some optimizers begin with
                slot = optimizer.state.pop(old)
                optimizer.state[new] = {
                    key: _own_part(value, found.slices[name], device) for key, value in slot.items()
                }
            del old
        group["params"] = replaced
    if state.ema is not None:
        state.ema.reset()
    # Whatever else has a parameter would go on with it as it was: a silent wrong result.
    kept = [name for name, one in before.items() if one() is not None]
    if kept:
        raise TargetError(
            f"launch.shard_model: something beside its module keeps {kept[0]}, such as a list of "
            "weights or a loss that has the model; it would go on with the weights as they are "
            "now. Read the weights from the module at each call, or leave launch.shard_model out"
        )
    return found


def _check_state(state: TrainingState) -> None:
    optimizer = state.optimizer
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if type(optimizer) not in EACH_BY_ITSELF or fused:
        found = f"torch.optim:{type(optimizer).__name__}" + ", fused" * fused
        if type(optimizer) not in EACH_BY_ITSELF:
            found = type(optimizer).__qualname__
        names = ", ".join(sorted(kind.__name__ for kind in EACH_BY_ITSELF))
        raise TargetError(
            f"launch.shard_model: the optimizer is {found}, which is not known to change each "
            f"number by itself and to round it alike in slices; expected torch's {names}, not "
            "fused; or leave launch.shard_model out"
        )
    own = set(dict(state.model.named_parameters()))
    beside = [name for names in state.parameter_names for name in names if name not in own]
    if beside:
        raise TargetError(
            f"launch.shard_model: {beside[0]} of the loss or step is trained, which is not done in "
            "slices; make it a part of the model, or leave launch.shard_model out"
        )
    assert state.scaler is None and state.forward is None, "refused with the config"  # noqa: PT018


def _own_part(value: Any, slice_: Slice, device: torch.device) -> Any:
    """What a process keeps of an optimizer's slot."""
    if not isinstance(value, Tensor) or tuple(value.shape) != slice_.shape:
        return value
    return value[slice_.first : slice_.first + slice_.rows].to(device, copy=True)
