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

from epochal.data.errors import StateMismatch, TargetError
from epochal.engine.loop.gradients import SKIPPED, Update

# U updates of the epoch, K of them since the last read, P parameter tensors, G groups, R rates

READ_EVERY = 256  # updates; bounds the memory of what waits
LOSS = "train/loss"
RATE = "train/learning_rate"
NORM = "gradients/norm"
CLIPPED = "gradients/norm_clipped"
PARTS = "train/loss/"

Column = npt.NDArray[np.float64]
Number = tuple[float, str]
"""A number of a device, and its type there: `float32` or `float64`."""


@dataclass(frozen=True, slots=True)
class UpdateValues:
    """The numbers of one update."""

    loss: float
    learning_rate: float
    gradient_norm: float


class UpdateRecorder:
    """The step metrics of one epoch, in order of the updates.

    extras: names of what each update gives beside its norms. rates: names of further learning
    rates. tolerant: whether an update that is not finite is no problem, since it is skipped.
    """

    def __init__(
        self,
        groups: Sequence[str],
        group_of_P: Sequence[int],
        *,
        extras: Sequence[str] = (),
        rates: Sequence[str] = (),
        tolerant: bool = False,
    ) -> None:
        self._groups = tuple(groups)
        self._extras = tuple(extras)
        self._rate_names = tuple(f"{RATE}/{name}" for name in rates)
        self._tolerant = tolerant
        self._part_names: tuple[str, ...] | None = None
        # Tensors sorted by group, and where each group starts: what reduceat takes.
        self._by_group_P = np.argsort(np.asarray(group_of_P), kind="stable")
        counts_G = np.bincount(np.asarray(group_of_P), minlength=len(self._groups))
        self._starts_G = np.concatenate([[0], np.cumsum(counts_G)[:-1]])
        self._done: dict[str, list[Column]] = {}
        self._loss: list[Tensor] = []
        self._parts: list[tuple[Tensor, ...]] = []
        self._updates: list[Update] = []
        self._rates: list[tuple[float, ...]] = []
        self._partial: tuple[Tensor, ...] | None = None
        self._last: UpdateValues | None = None
        self._num_read = 0
        self._first_bad: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics' names, in the order in which the tables hold them."""
        return (
            LOSS,
            *(f"{PARTS}{name}" for name in self._part_names or ()),
            *(RATE, *self._rate_names, NORM, CLIPPED),
            *self._extras,
            *(f"{NORM}/{group}" for group in self._groups),
        )

    @property
    def loss(self) -> Tensor:
        """Of the update under way, shape (), so far."""
        assert self._partial is not None
        return self._partial[0]

    def add_loss(self, loss: Tensor, parts: Mapping[str, Tensor] | None = None) -> None:
        """Adds a micro-batch's share, shape (), to the loss of the update under way.

        parts: shares of the parts of the loss, the same names each time. Raises TargetError.
        """
        parts = parts or {}
        names = tuple(sorted(parts)) if parts else ()
        if self._part_names is None:
            self._part_names = names
        if names != self._part_names:
            raise TargetError(
                f"loss: its parts were {', '.join(self._part_names) or 'none'}, now they are "
                f"{', '.join(names) or 'none'}; give the same ones for each batch"
            )
        shares = (loss, *[parts[name] for name in names])
        before = self._partial
        self._partial = (
            shares if before is None else tuple(a + b for a, b in zip(before, shares, strict=True))
        )

    def end_update(
        self,
        update: Update,
        *,
        rate: float,
        further: Sequence[float] = (),
        correction: Tensor | float | None = None,
    ) -> None:
        """Ends the update; rate: of the first parameter group; further: in the order of `rates`.

        correction: what its loss and parts are multiplied by, as `LossWeights.end` says.
        """
        assert self._partial is not None
        shares = self._partial
        if correction is not None:
            shares = tuple(share * correction for share in shares)
        self._loss.append(shares[0])
        self._parts.append(shares[1:])
        self._updates.append(update)
        self._rates.append((rate, *further))
        self._partial = None
        if len(self._loss) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Copies what waits to the host, in one go: waits for the device."""
        if not self._loss:
            return
        loss_K = _host(self._loss)
        norm_K, clipped_K = (
            _host([getattr(update, name) for update in self._updates])
            for name in ("total", "clipped")
        )
        square_KP = _host([update.tensor_P for update in self._updates])[:, self._by_group_P] ** 2
        # Row by row and in float64: a row's sum does not depend on how many wait beside it.
        norm_KG = np.sqrt(np.add.reduceat(square_KP, self._starts_G, axis=1))
        rate_RK = np.array(self._rates, dtype=np.float64).T
        parts = [_host(column) for column in zip(*self._parts, strict=True)]
        extras = [update.extras for update in self._updates]
        more = [_host(column) for column in zip(*extras, strict=True)]
        columns = [loss_K, *parts, *rate_RK, norm_K, clipped_K, *more, *norm_KG.T]
        for name, column in zip(self.names, columns, strict=True):
            self._done.setdefault(name, []).append(column)
        self._look_for_bad(loss_K, norm_K, dict(zip(self._extras, more, strict=True)))
        self._num_read += len(loss_K)
        self._last = UpdateValues(float(loss_K[-1]), float(rate_RK[0, -1]), float(norm_K[-1]))
        self._loss, self._parts, self._updates, self._rates = [], [], [], []

    def _look_for_bad(self, loss_K: Column, norm_K: Column, extras: Mapping[str, Column]) -> None:
        if self._tolerant or self._first_bad is not None:
            return
        skipped_K = extras.get(SKIPPED, np.zeros(len(loss_K))) > 0
        bad_K = ~np.isfinite(loss_K) | (~np.isfinite(norm_K) & ~skipped_K)
        if bad_K.any():
            self._first_bad = self._num_read + int(np.argmax(bad_K))

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
            name: np.concatenate(parts) if (parts := self._done.get(name)) else np.zeros(0)
            for name in self.names
        }

    def partial_loss(self) -> list[Number] | None:
        """Loss and parts of the update under way, or None between two updates."""
        if self._partial is None:
            return None
        return [(float(part), str(part.dtype).removeprefix("torch.")) for part in self._partial]

    def restore(
        self,
        columns: Mapping[str, Any],
        *,
        partial_loss: Sequence[Number] | None,
        device: torch.device,
    ) -> None:
        """Goes on from what `columns` and `partial_loss` gave. Raises StateMismatch."""
        parts = sorted(name.removeprefix(PARTS) for name in columns if name.startswith(PARTS))
        self._part_names = tuple(parts)
        if set(columns) != set(self.names):
            raise StateMismatch(
                f"step metrics: stored are {sorted(columns)}, the model gives {sorted(self.names)}"
            )
        self._done = {name: [np.asarray(columns[name], np.float64)] for name in self.names}
        self._num_read = len(self._done[LOSS][0])
        if partial_loss is not None:
            if len(partial_loss) != 1 + len(parts):
                raise StateMismatch(
                    f"step metrics: the loss of the update under way has {len(partial_loss)} "
                    f"numbers, expected one and {len(parts)} parts"
                )
            self._partial = tuple(
                torch.tensor(number, dtype=_dtype(name), device=device)
                for number, name in partial_loss
            )


def _dtype(name: str) -> torch.dtype:
    dtype = {"float32": torch.float32, "float64": torch.float64}.get(name)
    if dtype is None:
        raise StateMismatch(
            f"step metrics: the loss of the update under way is {name!r:.40}, expected float32 or "
            "float64"
        )
    return dtype


def _host(numbers: Sequence[Tensor | float]) -> Column:
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    if tensors:
        stacked: Column = torch.stack(tensors).double().cpu().numpy()
        return stacked
    return np.array(numbers, dtype=np.float64)
