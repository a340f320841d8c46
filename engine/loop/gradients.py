"""Gradients in one place: zeroed, scaled, weighted, measured, clipped and applied, once each.

Norms are taken of all tensors at once and stay on the device. Two norms, before and after the
clip, and one per group, which the recorder makes of the norms per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from epochal.data.errors import NonFinite
from epochal.data.types import Window
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.deal import shard_ends
from epochal.engine.shards.group import Group, Subtree, kinds_of
from epochal.engine.shards.tree import Leaf, SumTree

# P parameter tensors, G groups

MAX_SKIPPED = 50  # updates in a row; more are no accident, and no scale is low enough
RATIO = "gradients/update_ratio"
SCALE = "gradients/scale"
SKIPPED = "gradients/skipped"
_DOUBLE = {torch.float64, torch.complex128}
_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


@dataclass(frozen=True, slots=True)
class Update:
    """What one update measured, on the device; numbers where that is the CPU.

    total and clipped: L2 norms before and after the clip, shape (). tensor_P: of each tensor before
    the clip, of shape (P,), zero where a parameter got no gradient. extras: in the order of
    `Gradients.extras`, what the config asks for beside them: `gradients/update_ratio`, ‖Δw‖ / ‖w‖
    over all weights; `gradients/scale` of a float16 loss; `gradients/skipped`, 1 where nothing was
    changed. Norms are float32, and float64 where a parameter is.
    """

    total: Tensor | float
    clipped: Tensor | float
    tensor_P: Tensor
    extras: tuple[Tensor | float, ...] = ()


class Gradients:
    """The gradients of one state, over an epoch. group: what their updates are dealt to."""

    def __init__(
        self, state: TrainingState, config: GradientsConfig, group: Group | None = None
    ) -> None:
        named = state.named_parameters()
        self._state = state
        self._config = config
        self._parameters = list(named.values())
        # Those that the optimizer does not hold get gradients too, which nobody else would clear.
        everything = dict.fromkeys((*state.model.parameters(), *self._parameters))
        self._all = [parameter for parameter in everything if parameter.requires_grad]
        self._slices = None if group is None else group.model
        if self._slices is not None:
            own = dict.fromkeys(self._slices.parameters.values())
            self._all = [parameter for parameter in own if parameter.requires_grad]
        self._on_cpu = state.device.type == "cpu"
        wide = any(parameter.dtype in _DOUBLE for parameter in self._parameters)
        self._norm_dtype = torch.float64 if wide else torch.float32
        self._skipped_in_a_row = 0
        self._group = group
        self._nodes = [Subtree(0, config.shards)] if group is None else group.own
        self._trees = [SumTree() for _ in self._nodes]
        self._shard = self._nodes[0].first
        self._sums: list[Leaf] = []
        self._summed = False
        tops = [".".join(name.split(".")[:-1][: config.depth]) or name for name in named]
        self.groups: tuple[str, ...] = tuple(dict.fromkeys(tops))
        self.group_of_P: tuple[int, ...] = tuple(self.groups.index(top) for top in tops)
        self.may_skip = config.on_nonfinite == "skip" or state.scaler is not None
        if state.scaler is not None:
            # Its scale is made by the first loss, and this process may have no micro-batch of the
            # first updates: there are fewer in a window than processes.
            state.scaler.scale(torch.zeros((), device=state.device))

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the numbers that each update gives beside its norms."""
        return (
            *((RATIO,) if self._config.update_ratio else ()),
            *((SCALE,) if self._state.scaler is not None else ()),
            *((SKIPPED,) if self.may_skip else ()),
        )

    @property
    def num_tensors(self) -> int:
        """P."""
        return len(self._parameters)

    def begin(self) -> None:
        """Before the first backward pass: no gradient is left of what was before."""
        for parameter in self._all:
            parameter.grad = None
            if self._config.zeroing == "zero" and self._config.shards == 1:
                parameter.grad = torch.zeros_like(parameter)

    def begin_micro_batch(self, window: Window) -> None:
        """Before the backward pass of a micro-batch: what its shard has not is put aside."""
        if self._slices is not None:
            self._slices.begin_turn(window.position, window.count)
        elif self._config.shards > 1:
            self._end_shards(window, before=window.position)

    def end_shards(self, window: Window) -> str:
        """After the update's last backward pass here: what there is to sum, as `kinds_of` says."""
        if self._slices is not None:
            return ""
        self._end_shards(window, before=window.count)
        self._sums = [tree.take() for tree in self._trees]
        return kinds_of(self._sums)

    def sum(self, window: Window, kinds: Sequence[str]) -> None:
        """Sums the gradients of an update's shards; `update` does it where it was not done.

        kinds: of a group's processes, what `end_shards` gave there.
        """
        if self._config.shards > 1 and not self._summed:
            self._sum_shards(window, kinds)
            self._summed = True

    def _sum_shards(self, window: Window, kinds: Sequence[str]) -> None:
        if self._slices is not None:
            total = self._slices.sums(self._all, window.count)
        elif self._group is not None:
            total = self._group.sum_leaves(self._sums, self._all, kinds)
        else:
            self._end_shards(window, before=window.count)
            total = self._trees[0].take()
        self._sums = []
        for parameter, gradient in zip(self._all, total, strict=True):
            parameter.grad = gradient
            if gradient is None and self._config.zeroing == "zero":
                parameter.grad = torch.zeros_like(parameter)
        self._shard = self._nodes[0].first

    def _end_shards(self, window: Window, *, before: int) -> None:
        ends = shard_ends(window.count, self._config.shards)
        for node, tree in zip(self._nodes, self._trees, strict=True):
            while self._shard < node.first + node.leaves and ends[self._shard] <= before:
                tree.add([parameter.grad for parameter in self._all])
                for parameter in self._all:
                    parameter.grad = None
                self._shard += 1

    def zero(self) -> None:
        """Frees every gradient, so that the next backward pass writes instead of adding.

        With `zeroing: zero` it fills them with zeros.
        """
        if self._config.zeroing == "zero" and self._config.shards == 1:
            torch._foreach_zero_(
                [parameter.grad for parameter in self._all if parameter.grad is not None]
            )
            return
        for parameter in self._all:
            parameter.grad = None

    @torch.no_grad()
    def update(
        self,
        loss: Tensor,
        window: Window,
        *,
        correction: Tensor | float | None = None,
        kinds: Sequence[str] = (),
    ) -> Update:
        """Sums, unscales, corrects, measures, clips, steps the optimizer and zeroes.

        loss: of this update, shape (). window: of its last micro-batch. correction: what gradients
        are multiplied by first. kinds: of a group's processes, what `end_shards` gave there.

        Raises NonFinite after 50 skipped updates in a row.
        """
        self.sum(window, kinds)
        self._summed = False
        scaler, optimizer = self._state.scaler, self._state.optimizer
        scale = None if scaler is None else scaler.get_scale()
        if scaler is not None:
            scaler.unscale_(optimizer)
        dense = self._dense()
        if correction is not None and dense:
            torch._foreach_mul_(dense, correction)
        total, tensor_P = self._measured(dense)
        skipped = self.may_skip and not _are_finite(total, loss)
        clipped = total if skipped else self._clip(dense, total)
        before = self._weights() if self._config.update_ratio else None
        if not skipped:
            optimizer.step()
        if scaler is not None:
            scaler.update()
        self._count(skipped=skipped)
        ratio = self._ratio(before)
        self.zero()
        extras = (
            *(() if ratio is None else (ratio,)),
            *(() if scale is None else (scale,)),
            *((float(skipped),) if self.may_skip else ()),
        )
        return Update(total, clipped, tensor_P, extras)

    def _count(self, *, skipped: bool) -> None:
        if not skipped:
            self._state.updates_done += 1
            self._skipped_in_a_row = 0
            if self._state.ema is not None:
                self._state.ema.update(self._state.updates_done)
            return
        self._state.updates_skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED:
            raise NonFinite(
                f"the last {MAX_SKIPPED} updates were skipped, since their losses or gradients "
                "were not finite. Nothing of this epoch was committed; lower the learning rate, "
                "use gradients.clip_norm or another precision.dtype"
            )

    def _dense(self) -> list[Tensor]:
        return [_values(parameter) for parameter in self._parameters if parameter.grad is not None]

    def _measured(self, dense: list[Tensor]) -> tuple[Tensor | float, Tensor]:
        if not dense:
            zero = torch.zeros((), dtype=self._norm_dtype, device=self._parameters[0].device)
            return self._number(zero), zero.expand(self.num_tensors)
        tensor_P = self._norms(dense)
        total = self._number(torch.linalg.vector_norm(tensor_P))
        return total, tensor_P if len(dense) == self.num_tensors else self._spread(tensor_P)

    def _norms(self, tensors: list[Tensor], *, everything: bool = False) -> Tensor:
        """Of shape (Q,): of tensors of the parameters that have a gradient, or of all."""
        if self._slices is None:
            return tensor_norms(tensors)
        given = [one for one in self._parameters if everything or one.grad is not None]
        return self._slices.norms(tensors, given, partial(tensor_norms, dtype=self._norm_dtype))

    def _number(self, norm: Tensor) -> Tensor | float:
        """On the CPU a number, which costs no wait there and is cheaper to go on with."""
        return norm.item() if self._on_cpu else norm

    def _clip(self, dense: list[Tensor], total: Tensor | float) -> Tensor | float:
        """Clips in place; gives the norm after it."""
        clipped, value, norm = total, self._config.clip_value, self._config.clip_norm
        if not dense:
            return clipped
        if value is not None:
            torch._foreach_clamp_min_(dense, -value)
            torch._foreach_clamp_max_(dense, value)
            clipped = self._number(torch.linalg.vector_norm(self._norms(dense)))
        return clipped if norm is None else self._scale(dense, clipped, limit=norm)

    def _scale(self, dense: list[Tensor], norm: Tensor | float, *, limit: float) -> Tensor | float:
        """Multiplies by min(1, limit / (norm + 1e-6)), in place; gives the norm after it."""
        if isinstance(norm, Tensor):
            factor = (limit / (norm + _EPSILON)).clamp(max=1.0)
            torch._foreach_mul_(dense, factor)
            return norm * factor
        # In the norm's type and in the order of torch's operations: the same bits as there.
        kind = np.float64 if self._norm_dtype == torch.float64 else np.float32
        number = kind(norm)
        scalar = kind(1) / (number + kind(_EPSILON)) * kind(limit)
        if scalar >= 1:  # times one changes no bit
            return norm
        torch._foreach_mul_(dense, torch.scalar_tensor(float(scalar), dtype=self._norm_dtype))
        return float(number * scalar)

    def _spread(self, norm_Q: Tensor) -> Tensor:
        """The norms of the parameters that got a gradient, among zeros for those that did not."""
        tensor_P = norm_Q.new_zeros(self.num_tensors)
        given = [
            row for row, parameter in enumerate(self._parameters) if parameter.grad is not None
        ]
        tensor_P[given] = norm_Q
        return tensor_P

    def _weights(self) -> list[Tensor]:
        return [as_real(parameter.detach()).clone() for parameter in self._parameters]

    def _ratio(self, before: list[Tensor] | None) -> Tensor | None:
        if before is None:
            return None
        norm: Tensor = torch.linalg.vector_norm(self._norms(before, everything=True))
        torch._foreach_sub_(before, [as_real(weight.detach()) for weight in self._parameters])
        moved: Tensor = torch.linalg.vector_norm(self._norms(before, everything=True))
        return moved / norm.clamp(min=_EPSILON)


def _are_finite(norm: Tensor | float, loss: Tensor) -> bool:
    """Whether both are; waits for the device."""
    if isinstance(norm, Tensor):
        return bool(torch.isfinite(norm) & torch.isfinite(loss))
    return math.isfinite(norm) and math.isfinite(loss.item())


def _values(parameter: nn.Parameter) -> Tensor:
    """The stored numbers of the parameter's gradient, which share its memory.

    Of complex numbers their parts, shape (…, 2): norm, clip and factor are the same of these.
    """
    gradient = parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        # An index that stands twice would be measured twice.
        gradient = parameter.grad = gradient.coalesce()
        gradient = gradient._values()  # noqa: SLF001 - the public values() is a detached view too
    return as_real(gradient)


def as_real(tensor: Tensor) -> Tensor:
    """A complex tensor as its real and imaginary parts, shape (…, 2); others as they are."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def tensor_norms(dense: list[Tensor], *, dtype: torch.dtype | None = None) -> Tensor:
    """Of shape (Q,), real tensors': in `dtype`; none: float64 where one has that, else float32.

    Half precision is summed in float32.
    """
    wide = any(tensor.dtype == torch.float64 for tensor in dense)
    dtype = dtype or (torch.float64 if wide else torch.float32)
    norms = torch._foreach_norm(dense, 2.0, dtype=dtype)  # noqa: SLF001 - get_total_norm's own
    return torch.stack(norms)
