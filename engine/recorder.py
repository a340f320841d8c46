"""What every update leaves behind: loss, rate, norms. Kept on the device, read now and then.

Numbers of an update stay device tensors in a list until somebody reads, so that the loop never
waits for the device; a read stacks and copies them all at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.errors import StateMismatch
from epochal.engine.gradients import Norms

# U updates of the epoch, K of them since the last read, P parameter tensors, G groups

READ_EVERY = 256  # updates; bounds the memory of what waits
LOSS = "train/loss"
RATE = "train/learning_rate"
NORM = "gradients/norm"
CLIPPED = "gradients/norm_clipped"

Column = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UpdateValues:
    """The numbers of one update."""

    loss: float
    learning_rate: float
    gradient_norm: float


class UpdateRecorder:
    """The step metrics of one epoch, in order of the updates."""

    def __init__(self, groups: Sequence[str], group_of_P: Sequence[int]) -> None:
        self._groups = tuple(groups)
        # Tensors sorted by group, and where each group starts: what reduceat takes.
        self._by_group_P = np.argsort(np.asarray(group_of_P), kind="stable")
        counts_G = np.bincount(np.asarray(group_of_P), minlength=len(self._groups))
        self._starts_G = np.concatenate([[0], np.cumsum(counts_G)[:-1]])
        self._done: dict[str, list[Column]] = {name: [] for name in self.names}
        self._loss: list[Tensor] = []
        self._norms: list[Norms] = []
        self._rates: list[float] = []
        self._partial: Tensor | None = None
        self._last: UpdateValues | None = None
        self._num_read = 0
        self._first_bad: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names, in the order in which the tables hold them."""
        return (LOSS, RATE, NORM, CLIPPED, *(f"{NORM}/{group}" for group in self._groups))

    def add_loss(self, loss: Tensor) -> None:
        """Adds a micro-batch's share, shape (), to the loss of the update under way."""
        self._partial = loss if self._partial is None else self._partial + loss

    def end_update(self, norms: Norms, *, rate: float) -> None:
        """Ends the update; rate: the learning rate of the first parameter group."""
        assert self._partial is not None
        self._loss.append(self._partial)
        self._norms.append(norms)
        self._rates.append(rate)
        self._partial = None
        if len(self._loss) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Copies what waits to the host, in one go: waits for the device."""
        if not self._loss:
            return
        loss_K = _host(self._loss)
        norm_K, clipped_K = (
            _host([getattr(one, name) for one in self._norms]) for name in ("total", "clipped")
        )
        square_KP = _host([one.tensor_P for one in self._norms])[:, self._by_group_P] ** 2
        # Row by row and in float64: a row's sum does not depend on how many wait beside it.
        norm_KG = np.sqrt(np.add.reduceat(square_KP, self._starts_G, axis=1))
        rate_K = np.array(self._rates, dtype=np.float64)
        columns = [loss_K, rate_K, norm_K, clipped_K, *norm_KG.T]
        for name, column in zip(self.names, columns, strict=True):
            self._done[name].append(column)
        bad_K = ~(np.isfinite(loss_K) & np.isfinite(norm_K))
        if self._first_bad is None and bad_K.any():
            self._first_bad = self._num_read + int(np.argmax(bad_K))
        self._num_read += len(loss_K)
        self._last = UpdateValues(float(loss_K[-1]), float(rate_K[-1]), float(norm_K[-1]))
        self._loss, self._norms, self._rates = [], [], []

    @property
    def last(self) -> UpdateValues | None:
        """The last update that was read, or None."""
        return self._last

    @property
    def first_non_finite(self) -> int | None:
        """The first update that was read, from 0, whose loss or norm is NaN or infinite."""
        return self._first_bad

    def columns(self) -> dict[str, Column]:
        """Name → float64 of shape (U,), of all updates so far."""
        self.read()
        return {
            name: np.concatenate(parts) if parts else np.zeros(0)
            for name, parts in self._done.items()
        }

    def partial_loss(self) -> float | None:
        """The loss of the update under way, or None between two updates."""
        return None if self._partial is None else float(self._partial)

    def restore(
        self, columns: Mapping[str, Any], *, partial_loss: float | None, device: torch.device
    ) -> None:
        """Goes on from what `columns` and `partial_loss` gave. Raises StateMismatch."""
        if set(columns) != set(self.names):
            raise StateMismatch(
                f"step metrics: stored are {sorted(columns)}, the model gives {sorted(self.names)}"
            )
        self._done = {name: [np.asarray(columns[name], np.float64)] for name in self.names}
        self._num_read = len(self._done[LOSS][0])
        if partial_loss is not None:
            self._partial = torch.tensor(partial_loss, dtype=torch.float32, device=device)


def _host(tensors: Sequence[Tensor]) -> Column:
    stacked: Column = torch.stack(list(tensors)).double().cpu().numpy()
    return stacked
