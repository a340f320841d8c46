"""What the training pass sees of each sample, collected at no extra forward pass.

A step's losses and logits stay device tensors in a list; some thousand rows at a time become the
columns, so that a step pays for a few references only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.errors import StateMismatch, TargetError
from epochal.engine.model.batches import without_ignored
from epochal.engine.model.step import StepOutput
from epochal.engine.shards.group import Group

# B samples of a micro-batch, R rows that wait, L of them with padding, N samples of the epoch,
# C classes

MAX_WAITING = 1 << 20  # numbers in the logits that wait, 4 MiB in float32
FEW_CLASSES, LANES = 128, 64
FLOATS = ("loss", "confidence", "p_true", "margin", "el2n")
OVERRIDES = (*FLOATS[1:], "correct", "label")
DENOMINATOR = "denominator"
_CLASSES, _ROWS = 2, 1  # dimensions of logits and of labels

Columns = dict[str, npt.NDArray[Any]]


class Observer:
    """The observations of one epoch, in the order of training.

    ignore_index: of a loss, a label that is none.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        self._ignore_index = ignore_index
        self._ids: list[npt.NDArray[np.int64]] = []
        self._indices: list[int] = []
        self._columns: dict[str, list[Tensor]] = {name: [] for name in (*FLOATS, *OVERRIDES[-2:])}
        self._columns[DENOMINATOR] = []
        self._loss: list[Tensor] = []
        self._denominator: list[Tensor | None] = []
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._given: list[Mapping[str, Tensor]] = []
        self._form: tuple[Any, ...] | None = None
        self._waiting = 0
        self._restored: Columns | None = None

    def take(
        self, ids_B: npt.NDArray[np.int64], output: StepOutput, target: Any, *, index: int = 0
    ) -> None:
        """Takes one micro-batch: ids int64 of shape (B,), what the step gave, and the targets.

        index: its place among those that several processes take, for `gather`.
        """
        size = len(ids_B)
        logits, labels, given = output.outputs, target, output.observations
        classes = (
            isinstance(logits, Tensor)
            and logits.ndim == _CLASSES
            and logits.shape[1] > 1
            and logits.is_floating_point()
            and logits.shape[0] == size
            and isinstance(labels, Tensor)
            and labels.ndim == _ROWS
            and not labels.is_floating_point()
        )
        form = (logits.shape[1] if classes else 0, None if given is None else tuple(given))
        if form != self._form or self._waiting >= MAX_WAITING:
            self.flush()
            self._form = form
        self._ids.append(ids_B)
        self._indices.append(index)
        loss, denominator = _own_losses(output, size)
        self._loss.append(loss)
        self._denominator.append(denominator)
        if classes:
            self._logits.append(logits.detach())
            self._labels.append(labels)
        if given is not None:
            self._given.append(given)
        self._waiting += size * max(form[0], 1)

    @torch.no_grad()
    def flush(self) -> None:
        """Makes columns of the rows that wait; does not wait for the device."""
        if not self._loss:
            return
        loss_R = torch.cat(self._loss).float()
        columns = {**_unknown(loss_R), DENOMINATOR: self._denominators()}
        if self._logits:
            label_R = without_ignored(torch.cat(self._labels).long(), self._ignore_index)
            columns |= _of_logits(torch.cat(self._logits).float(), label_R)
        if self._given:
            columns |= self._overrides(len(loss_R))
        for name, column in columns.items():
            self._columns[name].append(column)
        self._loss, self._logits, self._labels, self._given = [], [], [], []
        self._denominator = []
        self._waiting = 0

    def _denominators(self) -> Tensor:
        """Of the rows that wait, float32 of shape (R,)."""
        pairs = zip(self._loss, self._denominator, strict=True)
        return torch.cat(
            [
                torch.ones_like(loss, dtype=torch.float32) if denominator is None else denominator
                for loss, denominator in pairs
            ]
        ).float()

    def _overrides(self, rows: int) -> dict[str, Tensor]:
        names = list(self._given[0])
        if unknown := [name for name in names if name not in OVERRIDES]:
            raise TargetError(
                f"step: observations {', '.join(unknown)} are not known; expected some of "
                f"{', '.join(OVERRIDES)}"
            )
        types = {"correct": torch.bool, "label": torch.int64}
        overrides = {
            name: torch.cat([columns[name].detach() for columns in self._given]).to(
                types.get(name, torch.float32)
            )
            for name in names
        }
        for name, column in overrides.items():
            if column.shape != (rows,):
                raise TargetError(
                    f"step: the observation {name!r} has shape {tuple(column.shape)} for {rows} "
                    "samples, expected one number for each"
                )
        return overrides

    def columns(self) -> Columns:
        """Name → array of shape (N,), of all samples so far; waits for the device.

        `denominator` is among them where some is not 1.
        """
        columns = self._all()
        if bool((columns[DENOMINATOR] == 1).all()):
            del columns[DENOMINATOR]
        return columns

    def _all(self) -> Columns:
        columns = self._own()
        if self._restored is None:
            return columns
        return {
            name: np.concatenate([self._restored[name], column]) for name, column in columns.items()
        }

    def _own(self) -> Columns:
        """Of what was taken here."""
        self.flush()
        types = {"label": np.int64, "correct": np.bool_}
        columns: Columns = {
            "sample_id": np.concatenate(self._ids) if self._ids else np.zeros(0, np.int64)
        }
        for name, parts in self._columns.items():
            kind = types.get(name, np.float32)
            columns[name] = torch.cat(parts).cpu().numpy() if parts else np.zeros(0, kind)
        return columns

    def gather(self, group: Group, *, everywhere: bool = False) -> None:
        """Brings the rows of a group's processes to its first, in order of their indices.

        The others hold none then, unless `everywhere`. All of the group call it.
        """
        own = self._own()
        sizes = [len(ids_B) for ids_B in self._ids]
        tensors = [torch.tensor(one, dtype=torch.int64) for one in (self._indices, sizes)]
        tensors += [torch.from_numpy(np.ascontiguousarray(column)) for column in own.values()]
        told = list(own)
        if everywhere:
            before = self._restored or {}
            given = group.exchange.gather(told, tensors)
            held = group.exchange.gather(
                list(before), [torch.from_numpy(column) for column in before.values()]
            )
            names, columns = held[0]
            first = {name: one.numpy() for name, one in zip(names, columns, strict=True)}
            self._restored = first or None
        else:
            given = group.exchange.gather_first(told, tensors) or []
        self._ids, self._indices = [], []
        for column in self._columns.values():
            column.clear()
        if given:
            self._restored = _in_order(given, before=self._restored)

    def restore(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Goes on from what `columns` gave. Raises StateMismatch."""
        names = {"sample_id", *self._columns}
        if set(columns) | {DENOMINATOR} != names:
            raise StateMismatch(
                f"observations: stored are {sorted(columns)}, expected {sorted(names)}"
            )
        self._restored = {DENOMINATOR: denominators_of(columns).astype(np.float32), **columns}


def _in_order(
    given: Sequence[tuple[list[str], list[Tensor]]], *, before: Columns | None
) -> Columns:
    """The rows of several processes by the index of their micro-batch, behind those of `before`.

    given: of each, the names of columns; indices and sizes of its micro-batches, and the columns.
    """
    index_M, size_M = (
        np.concatenate([tensors[place].numpy() for _, tensors in given]) for place in (0, 1)
    )
    order_N = np.argsort(np.repeat(index_M, size_M), kind="stable")
    columns: Columns = {}
    for place, name in enumerate(given[0][0]):
        column_N = np.concatenate([tensors[2 + place].numpy() for _, tensors in given])[order_N]
        columns[name] = column_N if before is None else np.concatenate([before[name], column_N])
    return columns


def _own_losses(output: StepOutput, size: int) -> tuple[Tensor, Tensor | None]:
    """Each sample's own loss and denominator, shape (B,); NaN where there is one for the batch."""
    loss, denominator = output.loss_B.detach(), output.denominator_B
    if denominator is not None:
        denominator = denominator.detach()
        if denominator.ndim == 0:
            denominator = (denominator / size).expand(size)
        else:
            loss = torch.where(denominator == 0, loss, loss / denominator)
    return loss if loss.ndim else loss.new_full((size,), torch.nan), denominator


def denominators_of(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """What each row adds to the denominator of a mean loss, float64 of shape (N,)."""
    denominator_N = columns.get(DENOMINATOR)
    if denominator_N is None:
        return np.ones(len(columns["sample_id"]))
    return denominator_N.astype(np.float64)


def mean_of(columns: Mapping[str, npt.NDArray[Any]]) -> float:
    """The mean loss over all rows, as the loss defines it; NaN where nothing counts."""
    losses_N = columns["loss"].astype(np.float64)
    if not len(losses_N):
        return math.nan
    if DENOMINATOR not in columns:
        return float(losses_N.mean())
    denominator_N = denominators_of(columns)
    numerator_N = losses_N * np.where(denominator_N == 0, 1.0, denominator_N)
    total = float(denominator_N.sum())
    return float(numerator_N.sum()) / total if total else math.nan


def _unknown(loss_R: Tensor) -> dict[str, Tensor]:
    """The columns of samples of which only the loss is known."""
    missing_R = torch.full_like(loss_R, torch.nan)
    columns = dict.fromkeys(FLOATS[1:], missing_R)
    label_R = torch.full_like(loss_R, -1, dtype=torch.int64)
    correct_R = torch.zeros_like(loss_R, dtype=torch.bool)
    return {"loss": loss_R, **columns, "correct": correct_R, "label": label_R}


def _of_logits(logits_RC: Tensor, label_R: Tensor) -> dict[str, Tensor]:
    """Confidence, probability of the label, margin, EL2N and whether the prediction is right.

    margin: the label's logit minus the largest other, whose mean is AUM (Pleiss et al. 2020,
    arXiv:2001.10528). el2n: ‖p − onehot‖₂ (Paul et al. 2021, arXiv:2107.07075). Where the label is
    no class (an ignored one) only the confidence is known. A row's numbers do not depend on how
    many rows come with it.
    """
    rows, num_classes = logits_RC.shape
    known_R = (label_R >= 0) & (label_R < num_classes)
    index_R = label_R.clamp(0, num_classes - 1)
    dim = 0 if logits_RC.is_cpu and num_classes <= FEW_CLASSES else 1
    logits, index = logits_RC, index_R.unsqueeze(dim)
    if dim == 0:
        logits, index = _in_lanes(logits_RC.T), _in_lanes(index)
    p = torch.softmax(logits, dim)
    confidence, predicted = p.max(dim)
    true, p_true = (scores.gather(dim, index).squeeze(dim) for scores in (logits, p))
    margin = true - logits.scatter(dim, index, -torch.inf).amax(dim)
    distance = p.scatter_add_(dim, index, torch.full_like(index, -1, dtype=p.dtype))
    of_label = {"p_true": p_true, "margin": margin, "el2n": distance.square_().sum(dim).sqrt_()}
    missing_R = torch.full_like(label_R, torch.nan, dtype=p.dtype)
    return {
        "confidence": confidence[:rows],
        **{
            name: torch.where(known_R, column[:rows], missing_R)
            for name, column in of_label.items()
        },
        "correct": known_R & (predicted[:rows] == label_R),
        "label": torch.where(known_R, label_R, torch.full_like(label_R, -1)),
    }


def _in_lanes(tensor_XR: Tensor) -> Tensor:
    """(X, R) to (X, L): rows side by side in memory, padded with zeros to a multiple of 64.

    With few classes the observations take a third of the time in this order. The padding is for
    equal bits: torch rounds the last elements, where they do not fill a vector register, in another
    way than the others.
    """
    rows = tensor_XR.shape[1]
    padded_XL = tensor_XR.new_zeros(len(tensor_XR), -(-rows // LANES) * LANES)
    padded_XL[:, :rows] = tensor_XR
    return padded_XL
