"""The learning rate as a pure function of fractional epoch, in plain Python floats.

A schedule is a list of pieces over [0, epochs]. The factor at t is computed from the pieces, and
the part of them that acts within one epoch is what that epoch's key holds: two schedules that
agree on [e, e + 1] have equal segments there, however they differ elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from epochal.data.types import Frozen

SIGNIFICANT_DIGITS = 12


@dataclass(frozen=True)
class Piece:
    """The factor on [start, end), in epochs.

    `line`: from `first` to `last`, straight. `cosine`: half a wave between phases `first` and
    `last` of [0, 1], from 1 down to `floor`.
    """

    kind: Literal["line", "cosine"]
    start: float
    end: float
    first: float
    last: float
    floor: float = 0.0

    def parameter(self, t: float) -> float:
        """`first` at the start, `last` at the end, straight between."""
        if self.first == self.last:
            return self.first
        return self.first + (self.last - self.first) * (t - self.start) / (self.end - self.start)

    def value(self, t: float) -> float:
        """The factor at t."""
        parameter = self.parameter(t)
        if self.kind == "line":
            return parameter
        # Eq. 5, Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts.
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * parameter))

    def clipped(self, start: float, end: float) -> Piece:
        """The part of the piece within [start, end]."""
        low, high = max(start, self.start), min(end, self.end)
        return Piece(self.kind, low, high, self.parameter(low), self.parameter(high), self.floor)


class _Schedule(Frozen):
    warmup: float = Field(
        default=0.0,
        ge=0,
        description="epochs (also fractions) in which the rate rises from 0 in a straight line",
    )

    def check(self, epochs: int) -> None:
        """Raises ValueError if the schedule does not fit into that many epochs."""
        if self.warmup > epochs:
            raise ValueError(f"warmup: {self.warmup:g} epochs do not fit into {epochs}")

    def body(self, epochs: int) -> list[Piece]:
        """The pieces as they would be without a warm-up."""
        raise NotImplementedError

    def pieces(self, epochs: int) -> list[Piece]:
        """The pieces over [0, epochs]; neighbours that continue each other are one."""
        pieces = [one for one in self.body(epochs) if one.end > one.start]
        if self.warmup > 0:
            target = _at(pieces, self.warmup)
            after = [one.clipped(self.warmup, epochs) for one in pieces if one.end > self.warmup]
            pieces = [Piece("line", 0.0, self.warmup, 0.0, target), *after]
        return _merged([one for one in pieces if one.end > one.start])


class ConstantSchedule(_Schedule):
    """The base rate throughout."""

    kind: Literal["constant"] = "constant"

    def body(self, epochs: int) -> list[Piece]:
        """One level piece."""
        return [Piece("line", 0.0, float(epochs), 1.0, 1.0)]


class MultiStepSchedule(_Schedule):
    """Another level from each milestone on."""

    kind: Literal["multi_step"] = "multi_step"
    milestones: tuple[float, ...] = Field(
        min_length=1, description="epochs (also fractions), rising, from which the next level holds"
    )
    factor: float = Field(
        default=0.1, gt=0, description="what each milestone multiplies the rate by"
    )
    values: tuple[float, ...] | None = Field(
        default=None,
        description="the factor of the base rate from each milestone on; instead of `factor`",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        marks = self.milestones
        if any(mark <= 0 for mark in marks) or list(marks) != sorted(set(marks)):
            raise ValueError(f"milestones: {list(marks)} are not rising numbers above 0")
        if self.values is not None:
            if len(self.values) != len(marks):
                raise ValueError(
                    f"values: {len(self.values)} for {len(marks)} milestones; expected one each"
                )
            if any(value < 0 for value in self.values):
                raise ValueError(f"values: {list(self.values)}; expected none below 0")
        return self

    def body(self, epochs: int) -> list[Piece]:
        """One level piece between each two milestones."""
        levels = self.values or tuple(
            self.factor**power for power in range(1, len(self.milestones) + 1)
        )
        starts = (0.0, *self.milestones)
        ends = (*self.milestones, float(epochs))
        return [
            Piece("line", start, min(end, float(epochs)), level, level)
            for start, end, level in zip(starts, ends, (1.0, *levels), strict=True)
            if start < epochs
        ]


class CosineSchedule(_Schedule):
    """Half a cosine from the base rate down, over all epochs after the warm-up."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1, description="factor of the base rate at the end")

    def body(self, epochs: int) -> list[Piece]:
        """One wave, that starts where the warm-up ends."""
        wave = Piece("cosine", self.warmup, float(epochs), 0.0, 1.0, self.final)
        return [Piece("line", 0.0, self.warmup, 1.0, 1.0), wave]


class WarmupStableDecaySchedule(_Schedule):
    """A rise, a level, and a fall in the last epochs: its trunk does not know its length."""

    kind: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    warmup: float = Field(
        default=1.0, ge=0, description="epochs in which the rate rises from 0 in a straight line"
    )
    decay: float = Field(ge=0, description="epochs at the end in which it falls in a straight line")
    final: float = Field(default=0.0, ge=0, le=1, description="factor of the base rate at the end")

    def check(self, epochs: int) -> None:
        """Raises ValueError if rise and fall do not fit into that many epochs."""
        if self.warmup + self.decay > epochs:
            raise ValueError(
                f"warmup {self.warmup:g} and decay {self.decay:g} epochs do not fit into {epochs}"
            )

    def body(self, epochs: int) -> list[Piece]:
        """A level and a fall (Hu et al. 2024, arXiv:2404.06395, §4)."""
        turn = float(epochs) - self.decay
        return [
            Piece("line", 0.0, turn, 1.0, 1.0),
            Piece("line", turn, float(epochs), 1.0, self.final),
        ]


ScheduleConfig = Annotated[
    ConstantSchedule | MultiStepSchedule | CosineSchedule | WarmupStableDecaySchedule,
    Field(discriminator="kind"),
]


def factor(config: ScheduleConfig, t: float, *, epochs: int) -> float:
    """What the base rate is multiplied by at fractional epoch t of [0, epochs].

    The rate of update u of n in epoch e is that at t = e + (u + 0.5) / n, the middle of the
    update's span: so no update runs at rate 0 at either end of a schedule.
    """
    return factor_function(config, epochs=epochs)(t)


def factor_function(config: ScheduleConfig, *, epochs: int) -> Callable[[float], float]:
    """`factor` as a function of t alone, for many calls."""
    return partial(_at, config.pieces(epochs))


def segments(config: ScheduleConfig, epoch: int, *, epochs: int) -> list[list[Any]]:
    """The schedule within [epoch, epoch + 1], as plain JSON: what the epoch's key holds."""
    clipped = [
        one.clipped(epoch, epoch + 1)
        for one in config.pieces(epochs)
        if one.end > epoch and one.start < epoch + 1
    ]
    return [
        [one.kind, *(_short(value) for value in (one.start, one.end, one.first, one.last)),
         *([_short(one.floor)] if one.kind == "cosine" else [])]
        for one in clipped
    ]  # fmt: skip


def _at(pieces: list[Piece], t: float) -> float:
    for piece in pieces:
        if t < piece.end:
            return piece.value(t)
    return pieces[-1].value(t)


def _short(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") + 0.0


def _merged(pieces: list[Piece]) -> list[Piece]:
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        level = (
            last is not None
            and last.kind == piece.kind == "line"
            and (last.first == last.last == piece.first == piece.last)
        )
        if last is not None and level:
            merged[-1] = Piece("line", last.start, piece.end, last.first, last.first)
        else:
            merged.append(piece)
    return merged
