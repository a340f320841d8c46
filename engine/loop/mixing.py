"""Mixup and CutMix: samples of a micro-batch mixed in pairs, each with a share of its own.

Shares, boxes and partners come from a counter-based hash of (seed, epoch, sample id): they have no
state, and depend neither on workers nor on where a run was interrupted. A row is a mixture of its
own sample and of a partner, and its own sample has at least half of it: where less was drawn, the
two change their roles. That changes no distribution, since a pair is as likely in either order; and
what is observed of a row (correct, confidence, margin) is about its own label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.errors import TargetError
from epochal.data.types import as_uniform, hash_repeated
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.model.batches import described, split_batch
from epochal.engine.model.step import DefaultStep, Losses, StepOutput

# B samples of a micro-batch, C classes, H and W of an image; … further dimensions

HALF = 0.5  # the own sample has at least this share
_LOGITS = 2  # dimensions: (B, C)
_IMAGE = 3  # dimensions of a batch of images, at least
_MAX_SOFT = 2  # dimensions of targets that are no classes

Floats = npt.NDArray[np.float64]


class MixedBatch(NamedTuple):
    """What a step gets instead of a batch.

    input: mixed. target: of each row's own sample, partner_target: of its partner. share_B: of the
    own sample, float32 in [0.5, 1]. label_smoothing: as the config has it.
    """

    input: Tensor
    target: Any
    partner_target: Any
    share_B: Tensor
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class MixPlan:
    """Who is mixed with whom, and how, in one micro-batch.

    partner_B: positions, a permutation. share_B: of the own sample. cut_B: rows under CutMix.
    box_B4: their boxes as top, bottom, left, right. swapped_B: rows whose own sample is in the box.
    """

    partner_B: npt.NDArray[np.int64]
    share_B: Floats
    cut_B: npt.NDArray[np.bool_]
    box_B4: npt.NDArray[np.int64]
    swapped_B: npt.NDArray[np.bool_]


def beta_symmetric(alpha: float, first_B: Floats, second_B: Floats) -> Floats:
    """Beta(alpha, alpha) from two uniform numbers in [0, 1), without rejection.

    Bailey's polar method for Student's t (Mathematics of Computation 62, 1994), by Devroye 1996,
    "Random variate generation in one line of code".
    """
    radius_B = (1.0 - first_B) ** (1.0 / alpha)
    cosine_B = np.cos(2.0 * math.pi * second_B)
    rest_B = 1.0 - radius_B
    half_B = np.sqrt(rest_B) * cosine_B / np.sqrt(radius_B + rest_B * cosine_B**2)
    found_B: Floats = np.clip(0.5 + 0.5 * half_B, 0.0, 1.0)
    return found_B


def plan_mixing(
    config: MixingConfig,
    sample_ids_B: npt.NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    size_HW: tuple[int, int] | None,
    repeats_B: npt.NDArray[np.int64] | None = None,
) -> MixPlan:
    """The mixtures of these samples; size_HW is needed for CutMix alone.

    repeats_B: how often each came before in the epoch: it is mixed anew each time. A row's partner
    follows it in the order of the hashed ids, so none is its own partner in a batch of two or more.
    """

    def drawn(use: str) -> Floats:
        return as_uniform(hashed(use))

    def hashed(use: str) -> npt.NDArray[np.uint64]:
        return hash_repeated(sample_ids_B, repeats_B, "mixing", seed, epoch, use)

    count = len(sample_ids_B)
    order_B = np.argsort(hashed("partner"), kind="stable")
    partner_B = np.empty(count, dtype=np.int64)
    partner_B[order_B] = np.roll(order_B, -1)
    mixed_B = drawn("whether") < config.probability
    cut_B = mixed_B & (drawn("which") < config.cut_share)
    blended_B = mixed_B & ~cut_B
    share_B = np.ones(count)
    box_B4 = np.zeros((count, 4), dtype=np.int64)
    if config.mixup is not None:
        blend_B = beta_symmetric(config.mixup, drawn("share"), drawn("angle"))
        share_B[blended_B] = blend_B[blended_B]
    if config.cutmix is not None:
        assert size_HW is not None
        raw_B = beta_symmetric(config.cutmix, drawn("share"), drawn("angle"))
        boxes_B4 = _boxes(raw_B, drawn("row"), drawn("column"), size_HW=size_HW)
        box_B4[cut_B] = boxes_B4[cut_B]
        area_B = (box_B4[:, 1] - box_B4[:, 0]) * (box_B4[:, 3] - box_B4[:, 2])
        share_B[cut_B] = (1.0 - area_B / (size_HW[0] * size_HW[1]))[cut_B]
    swapped_B = share_B < HALF
    share_B = np.where(swapped_B, 1.0 - share_B, share_B)
    return MixPlan(partner_B, share_B, cut_B, box_B4, swapped_B)


def _boxes(
    share_B: Floats, row_B: Floats, column_B: Floats, *, size_HW: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Boxes of the area 1 − share around uniform centres, cut at the edges (arXiv:1905.04899)."""
    ends = []
    for size, centre_B in zip(size_HW, (row_B, column_B), strict=True):
        half_B = (0.5 * np.sqrt(1.0 - share_B) * size).astype(np.int64)
        middle_B = (centre_B * size).astype(np.int64)
        ends += [np.maximum(middle_B - half_B, 0), np.minimum(middle_B + half_B, size)]
    return np.stack(ends, axis=1)


class Mixer:
    """Makes a `MixedBatch` of each micro-batch of one epoch."""

    def __init__(self, config: MixingConfig, *, seed: int, epoch: int) -> None:
        self._config = config
        self._seed = seed
        self._epoch = epoch

    def __call__(
        self,
        data: Any,
        sample_ids_B: npt.NDArray[np.int64],
        repeats_B: npt.NDArray[np.int64] | None = None,
    ) -> MixedBatch:
        """data: `(input, target)` or a dict, on the device. Raises TargetError if it fits not."""
        given, target = split_batch(data)
        model_input = self._checked(given, target, count=len(sample_ids_B))
        smoothing = self._config.label_smoothing
        if not self._config.mixes:
            share_B = model_input.new_ones(len(sample_ids_B), dtype=torch.float32)
            return MixedBatch(model_input, target, target, share_B, smoothing)
        shape = model_input.shape
        plan = plan_mixing(
            self._config,
            sample_ids_B,
            seed=self._seed,
            epoch=self._epoch,
            size_HW=(shape[-2], shape[-1]) if len(shape) >= _IMAGE else None,
            repeats_B=repeats_B,
        )
        device = model_input.device
        partner_B = _moved(plan.partner_B, device)
        share_B = _moved(plan.share_B.astype(np.float32), device)
        mixed = _mixed(model_input, model_input[partner_B], share_B, plan)
        return MixedBatch(mixed, target, target[partner_B], share_B, smoothing)

    def _checked(self, model_input: Any, target: Any, *, count: int) -> Tensor:
        if (
            not isinstance(model_input, Tensor)
            or not model_input.is_floating_point()
            or len(model_input) != count
        ):
            raise TargetError(
                "mixing: it takes inputs of floating-point numbers, one row for each sample, found "
                f"{described(model_input)}; convert them in the data set, or leave `mixing` out"
            )
        if self._config.cutmix is not None and model_input.ndim < _IMAGE:
            raise TargetError(
                f"mixing.cutmix: it takes images, whose last two dimensions are height and width, "
                f"found inputs of shape {tuple(model_input.shape)}; use mixing.mixup"
            )
        classes = isinstance(target, Tensor) and not target.is_floating_point() and target.ndim == 1
        soft = isinstance(target, Tensor) and target.is_floating_point()
        if not classes and not (soft and target.ndim <= _MAX_SOFT):
            raise TargetError(
                "mixing: it takes targets of classes, shape (batch,), or of numbers, (batch,) "
                f"or (batch, …), found {described(target)}; leave `mixing` out"
            )
        return model_input


def _moved(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)


def _per_row(column_B: Tensor, like: Tensor) -> Tensor:
    return column_B.reshape(-1, *(1,) * (like.ndim - 1))


def _mixed(own: Tensor, partner: Tensor, share_B: Tensor, plan: MixPlan) -> Tensor:
    blended_B = ~plan.cut_B & (plan.share_B < 1)
    mixed = own
    if blended_B.any():
        share = _per_row(share_B, own).to(own.dtype)
        rows = _per_row(_moved(blended_B, own.device), own)
        mixed = torch.where(rows, own * share + partner * (1 - share), own)
    if plan.cut_B.any():
        mixed = torch.where(_of_partner(plan, own), partner, mixed)
    return mixed


def _of_partner(plan: MixPlan, like: Tensor) -> Tensor:
    """Which pixels come from the partner under CutMix: bool of shape (B, 1…, H, W)."""
    device = like.device
    top, bottom, left, right = (
        _moved(np.ascontiguousarray(edge_B), device)[:, None] for edge_B in plan.box_B4.T
    )
    row_H = torch.arange(like.shape[-2], device=device)
    column_W = torch.arange(like.shape[-1], device=device)
    in_rows_BH = (row_H >= top) & (row_H < bottom)
    in_columns_BW = (column_W >= left) & (column_W < right)
    inside_BHW = in_rows_BH[:, :, None] & in_columns_BW[:, None, :]
    swapped_B = _moved(plan.swapped_B, device)[:, None, None]
    taken_BHW = (inside_BHW ^ swapped_B) & _moved(plan.cut_B, device)[:, None, None]
    ones = (1,) * (like.ndim - _IMAGE)
    return taken_BHW.reshape(len(like), *ones, like.shape[-2], like.shape[-1])


class MixedStep:
    """The default step for mixed batches; of others it makes what the default step makes.

    Classes: share · loss(target) + (1 − share) · loss(partner's target), for any loss with one
    number per sample; with smoothing, the loss of the mixed and smoothed probabilities. What the
    mean divides by is mixed in the same way, so that with one share for all it is the mean of
    share · mean(target) + (1 − share) · mean(partner's target). Targets of floating-point numbers
    are mixed themselves.
    """

    takes_mixed_batches = True

    def __init__(self, plain: DefaultStep) -> None:
        self._plain = plain

    @property
    def ignore_index(self) -> int | None:
        """As of the default step."""
        return self._plain.ignore_index

    @property
    def made_loss(self) -> Any:
        """As of the default step."""
        return self._plain.made_loss

    def __call__(self, model: Any, batch: Any) -> StepOutput:
        """Forward pass and loss. Raises TargetError for a loss that is not per sample."""
        if not isinstance(batch, MixedBatch):
            return self._plain(model, batch)
        outputs = model(batch.input)
        if batch.target.is_floating_point():
            share = _per_row(batch.share_B, batch.target).to(batch.target.dtype)
            target = batch.target * share + batch.partner_target * (1 - share)
            losses = self._plain.losses(outputs, target)
        elif batch.label_smoothing:
            losses = self._smoothed(outputs, batch)
        else:
            losses = self._mixture(outputs, batch)
        return StepOutput(
            _each(losses.loss_B),
            outputs,
            target=batch.target,
            parts=losses.parts,
            denominator_B=losses.denominator_B,
        )

    def _smoothed(self, outputs: Any, batch: MixedBatch) -> Losses:
        losses = self._plain.losses(outputs, soft_targets(batch, outputs))
        if losses.denominator_B is not None:
            return losses
        # Its probabilities stand for classes: the mean divides by what these count.
        own_B, partner_B = (
            self._plain.denominators(target, losses.loss_B)
            for target in (batch.target, batch.partner_target)
        )
        return losses._replace(denominator_B=_denominator(own_B, partner_B, batch.share_B))

    def _mixture(self, outputs: Any, batch: MixedBatch) -> Losses:
        own = self._plain.losses(outputs, batch.target)
        partner = self._plain.losses(outputs, batch.partner_target)
        share_B, parts = batch.share_B, None
        if own.parts is not None and partner.parts is not None:
            parts = {}
            for name, part in own.parts.items():
                share = share_B if part.ndim else share_B.mean()
                parts[name] = part * share + partner.parts[name] * (1 - share)
        return Losses(
            _each(own.loss_B) * share_B + _each(partner.loss_B) * (1 - share_B),
            _denominator(own.denominator_B, partner.denominator_B, share_B),
            parts,
        )


def _denominator(own_B: Tensor | None, partner_B: Tensor | None, share_B: Tensor) -> Tensor | None:
    if own_B is None and partner_B is None:
        return None
    one = torch.ones_like(share_B)
    own_B = one if own_B is None else own_B
    return own_B * share_B + (one if partner_B is None else partner_B) * (1 - share_B)


def _each(loss: Tensor) -> Tensor:
    if loss.ndim != 1:  # one number times the shares would look like losses
        raise TargetError(
            f"mixing: it needs one loss for each sample, found one of shape {tuple(loss.shape)}; "
            "use a loss that takes `reduction`, or leave `mixing` out"
        )
    return loss


def soft_targets(batch: MixedBatch, outputs: Any) -> Tensor:
    """Mixed and smoothed probabilities, shape (B, C); a target below 0 has none at all."""
    if not isinstance(outputs, Tensor) or outputs.ndim != _LOGITS:
        raise TargetError(
            f"mixing.label_smoothing: it needs outputs of shape (batch, classes), found "
            f"{described(outputs)}"
        )
    num_classes, smoothing = outputs.shape[1], batch.label_smoothing

    def soft(target_B: Tensor) -> Tensor:
        known_B1 = (target_B >= 0).unsqueeze(1)
        soft_BC = torch.zeros(len(target_B), num_classes, device=outputs.device)
        soft_BC.scatter_(1, target_B.clamp(min=0).unsqueeze(1), 1.0)
        return (soft_BC * (1 - smoothing) + smoothing / num_classes) * known_B1

    share_B1 = batch.share_B.unsqueeze(1)
    return soft(batch.target) * share_B1 + soft(batch.partner_target) * (1 - share_B1)
