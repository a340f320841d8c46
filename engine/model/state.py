"""Everything that training changes: weights and buffers, the optimizer, the count of updates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from epochal.data.errors import TargetError
from epochal.engine.model.companions import Companions, companion_parameters
from epochal.engine.model.ema import WeightAverage


@dataclass(frozen=True)
class Slice:
    """Rows `first` to `first` + `rows` of a tensor of shape `shape`, along its first dimension."""

    shape: tuple[int, ...]
    first: int
    rows: int

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Of what the process holds."""
        return (self.rows, *self.shape[1:])

    @property
    def row_numbers(self) -> int:
        """Numbers in a row."""
        count = 1
        for length in self.shape[1:]:
            count *= length
        return count


@dataclass
class TrainingState:
    """What a checkpoint holds.

    updates_done: optimizer steps over the whole run; updates_skipped: those that were left out
    because of numbers that are not finite. scaler: of float16 losses. forward: what is called
    instead of the model, such as a compiled one that shares its weights. ema: the average of the
    weights, if there is one. base_rates: the learning rate of each parameter group as it was
    built, which the schedule multiplies; rate_names: what each group has it from. trainable: the
    parameters that took gradients as they were built. These are config, not state. companions: what
    of loss and step is trained or kept beside the model, by name. slices: name → which rows of a
    parameter there are, where several processes hold a part of the model each; others are whole.

    Raises TargetError if a group's rate is no number, or a parameter is neither the model's nor one
    of the companions'.
    """

    model: nn.Module
    optimizer: Optimizer
    updates_done: int = 0
    ema: WeightAverage | None = None
    updates_skipped: int = 0
    scaler: torch.amp.GradScaler | None = None
    forward: Callable[..., Any] | None = None
    rate_names: tuple[str, ...] = ()
    companions: Companions = field(default_factory=dict)
    slices: Mapping[str, Slice] = field(default_factory=dict)
    base_rates: tuple[float, ...] = field(init=False)
    parameter_names: tuple[tuple[str, ...], ...] = field(init=False)
    trainable: tuple[str, ...] = field(init=False)
    _built_options: list[dict[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.base_rates = tuple(_rate(group) for group in self.optimizer.param_groups)
        if len(self.rate_names) != len(self.base_rates):  # a user's optimizer makes its own groups
            self.rate_names = tuple(f"group_{index}" for index in range(len(self.base_rates)))
        # Some optimizers count in their groups: what they were built with is needed to begin anew.
        self._built_options = [_options(group) for group in self.optimizer.param_groups]
        beside = companion_parameters(self.companions, self.model)
        named = {**dict(self.model.named_parameters()), **beside}
        names = {id(parameter): name for name, parameter in named.items()}
        self.parameter_names = tuple(
            tuple(_name(names, parameter) for parameter in group["params"])
            for group in self.optimizer.param_groups
        )
        self.trainable = tuple(
            name for name, parameter in self.named_parameters().items() if parameter.requires_grad
        )

    @property
    def device(self) -> torch.device:
        """Where the first parameter is."""
        return next(self.model.parameters()).device

    @property
    def updates_tried(self) -> int:
        """The place of the last update on the axis of step metrics."""
        return self.updates_done + self.updates_skipped

    @property
    def module(self) -> Any:
        """What a step calls."""
        return self.model if self.forward is None else self.forward

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimizer changes, by their names in the model, in its order.

        Those of companions are named after these: `loss.centers`.
        """
        return {
            name: parameter
            for group, names in zip(self.optimizer.param_groups, self.parameter_names, strict=True)
            for name, parameter in zip(names, group["params"], strict=True)
        }

    @property
    def further_rates(self) -> dict[str, float]:
        """Name → base rate of the groups whose name is not that of the first."""
        named = dict(zip(self.rate_names, self.base_rates, strict=True))
        return {name: rate for name, rate in named.items() if name != self.rate_names[0]}

    def forget_groups(self) -> None:
        """Gives each parameter group the options that it was built with."""
        for group, built in zip(self.optimizer.param_groups, self._built_options, strict=True):
            parameters = group["params"]
            group.clear()
            group.update({"params": parameters, **copy.deepcopy(built)})

    def set_rate_factor(self, factor: float) -> None:
        """Gives each parameter group its base rate times `factor`."""
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor


def _rate(group: dict[str, Any]) -> float:
    rate = group.get("lr")
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise TargetError(
            f"optimizer: a parameter group has lr {rate!r}, expected a number: the schedule "
            "multiplies it"
        )
    return float(rate)


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}


def _name(names: dict[int, str], parameter: nn.Parameter) -> str:
    if id(parameter) not in names:
        raise TargetError(
            f"optimizer: it holds a parameter of shape {tuple(parameter.shape)} that is not the "
            "model's, nor one of the loss or the step; only these are checkpointed"
        )
    return names[id(parameter)]


def fresh_optimizer(state: TrainingState) -> None:
    """Forgets what optimizer and average have gathered: the state before the first update."""
    state.optimizer.state.clear()
    state.forget_groups()
    state.updates_done = state.updates_skipped = 0
    if state.scaler is not None:
        state.scaler = torch.amp.GradScaler(state.device.type)
    state.set_rate_factor(1.0)
    if state.ema is not None:
        state.ema.reset()
