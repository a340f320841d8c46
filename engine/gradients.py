"""Gradients in one place: zeroed, weighted, measured, clipped and applied, once each.

Norms are taken of all tensors at once and stay on the device. Two norms, before and after the
clip, and one per group, which `engine.recorder` makes of the norms per tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from epochal.engine.config import GradientsConfig
from epochal.engine.state import TrainingState

# P parameter tensors, G groups

_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it
_NORM_DTYPE = torch.float32


@dataclass(frozen=True, slots=True)
class Norms:
    """L2 norms of one update, on the device.

    total and clipped: before and after the clip, shape (). tensor_P: of each tensor before the
    clip, float32 of shape (P,), zero where a parameter got no gradient.
    """

    total: Tensor
    clipped: Tensor
    tensor_P: Tensor


class Gradients:
    """The gradients of one state, over an epoch."""

    def __init__(self, state: TrainingState, config: GradientsConfig) -> None:
        named = state.named_parameters()
        self._state = state
        self._parameters = list(named.values())
        # Those that the optimizer does not hold get gradients too, which nobody else would clear.
        self._all = [one for one in state.model.parameters() if one.requires_grad]
        self._clip_norm = config.clip_norm
        self._clip_value = config.clip_value
        self._on_cpu = state.device.type == "cpu"
        tops = [name.partition(".")[0] for name in named]
        self.groups: tuple[str, ...] = tuple(dict.fromkeys(tops))
        self.group_of_P: tuple[int, ...] = tuple(self.groups.index(top) for top in tops)

    @property
    def num_tensors(self) -> int:
        """P."""
        return len(self._parameters)

    def zero(self) -> None:
        """Frees every gradient: the next backward pass writes instead of adding."""
        for parameter in self._all:
            parameter.grad = None

    def update(self) -> Norms:
        """Measures, clips, steps the optimizer and zeroes."""
        norms = self._measure_and_clip()
        self._state.optimizer.step()
        self._state.updates_done += 1
        self.zero()
        return norms

    @torch.no_grad()
    def _measure_and_clip(self) -> Norms:
        dense = [_values(one) for one in self._parameters if one.grad is not None]
        if not dense:
            zero = torch.zeros((), device=self._parameters[0].device)
            return Norms(zero, zero, zero.expand(self.num_tensors))
        tensor_P = _norms(dense)
        total = torch.linalg.vector_norm(tensor_P)
        clipped = total
        if self._clip_value is not None:
            torch._foreach_clamp_min_(dense, -self._clip_value)
            torch._foreach_clamp_max_(dense, self._clip_value)
            clipped = torch.linalg.vector_norm(_norms(dense))
        if self._clip_norm is not None:
            clipped = self._scale(dense, clipped, limit=self._clip_norm)
        if len(dense) < self.num_tensors:
            tensor_P = self._spread(tensor_P)
        return Norms(total, clipped, tensor_P)

    def _scale(self, dense: list[Tensor], norm: Tensor, *, limit: float) -> Tensor:
        """Multiplies by min(1, limit / (norm + 1e-6)), in place; gives the norm after it."""
        factor = (limit / (norm + _EPSILON)).clamp(max=1.0)
        if self._on_cpu and float(factor) == 1.0:  # times one changes no bit
            return norm
        torch._foreach_mul_(dense, factor)
        return norm * factor

    def _spread(self, norm_Q: Tensor) -> Tensor:
        """The norms of the parameters that got a gradient, among zeros for those that did not."""
        tensor_P = norm_Q.new_zeros(self.num_tensors)
        given = [row for row, one in enumerate(self._parameters) if one.grad is not None]
        tensor_P[given] = norm_Q
        return tensor_P


def _values(parameter: nn.Parameter) -> Tensor:
    """The stored numbers of the parameter's gradient, which share its memory."""
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    parameter.grad = gradient.coalesce()  # an index that stands twice would be measured twice
    return parameter.grad._values()  # noqa: SLF001 - the public values() is a detached view too


def _norms(dense: list[Tensor]) -> Tensor:
    """float32 of shape (Q,). Half precision is summed in float32."""
    norms = torch._foreach_norm(dense, 2.0, dtype=_NORM_DTYPE)  # noqa: SLF001 - get_total_norm's own
    return torch.stack(norms)
