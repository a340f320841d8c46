"""The kinds of schedules, as config models that say of which pieces they are made.

Durations are in epochs where nothing else is said; `in_epochs` makes them so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from epochal.data.types import Frozen, Target
from epochal.engine.schedule.pieces import (
    MAX_PIECES_PER_EPOCH,
    Piece,
    Window,
    function_of,
    level,
    line,
)


class _Schedule(Frozen):
    durations: ClassVar[tuple[str, ...]] = ("warmup",)
    """Fields that `unit` is the unit of."""

    unit: Literal["epochs", "updates"] = Field(
        default="epochs",
        description="unit of all durations. updates: where each epoch has the same number of them",
    )
    warmup: float = Field(
        default=0.0,
        ge=0,
        description="epochs (also fractions) in which the rate rises from 0 in a straight line",
    )

    def in_epochs(self, *, num_updates: int) -> Self:
        """The schedule with its durations in epochs of that many updates each."""
        if self.unit == "epochs":
            return self
        given = {name: getattr(self, name) for name in self.durations}
        converted = {
            name: tuple(update / num_updates for update in value)
            if isinstance(value, tuple)
            else value / num_updates
            for name, value in given.items()
        }
        return self.model_copy(update={**converted, "unit": "epochs"})

    def check(self, epochs: int) -> None:
        """Raises ValueError if the schedule, in epochs, does not fit into that many."""
        if self.warmup > epochs:
            raise ValueError(f"warmup: {self.warmup:g} epochs do not fit into {epochs}")

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:
        """The pieces as they would be without a warm-up; at least those in [low, high]."""
        raise NotImplementedError

    def window(self, epochs: int) -> Window:
        """The pieces over [0, epochs] by window."""
        return partial(self._pieces, epochs=epochs)

    def _pieces(self, low: float, high: float, *, epochs: int) -> Iterator[Piece]:
        if low < self.warmup:
            target = function_of(partial(self.body, epochs=epochs), epochs=epochs)(self.warmup)
            yield line(0.0, self.warmup, 0.0, target)
        for piece in self.body(max(low, self.warmup), high, epochs=epochs):
            if piece.start < epochs and piece.end > max(piece.start, self.warmup):
                yield piece.clipped(self.warmup, epochs) if self.warmup else piece


class ConstantSchedule(_Schedule):
    """The base rate throughout."""

    kind: Literal["constant"] = "constant"

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One level piece."""
        return [level(0.0, float(epochs), 1.0)]


class MultiStepSchedule(_Schedule):
    """Another level from each milestone on."""

    durations = ("warmup", "milestones")

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

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One level piece between each two milestones."""
        levels = self.values or tuple(
            self.factor**power for power in range(1, len(self.milestones) + 1)
        )
        starts = (0.0, *self.milestones)
        ends = (*self.milestones, float(epochs))
        for start, end, value in zip(starts, ends, (1.0, *levels), strict=True):
            if start < epochs:
                yield level(start, min(end, float(epochs)), value)


class StepSchedule(_Schedule):
    """Another level every so many epochs."""

    durations = ("warmup", "size")

    kind: Literal["step"] = "step"
    size: float = Field(gt=0, description="epochs (also fractions) that each level holds")
    factor: float = Field(default=0.1, gt=0, description="what each step multiplies the rate by")

    def check(self, epochs: int) -> None:
        """Raises ValueError if the levels are too many, or too high for a number."""
        super().check(epochs)
        _check_length("size", self.size, pieces=1)
        try:
            self.factor ** math.ceil(epochs / self.size)
        except OverflowError:
            raise ValueError(
                f"factor: {self.factor:g} every {self.size:g} epochs grows beyond all numbers in "
                f"{epochs}"
            ) from None

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One level piece per step."""
        number = max(0, int(low / self.size) - 1)
        while number * self.size < high:
            yield level(number * self.size, (number + 1) * self.size, self.factor**number)
            number += 1


class CosineSchedule(_Schedule):
    """Half a cosine from the base rate down, over all epochs after the warm-up."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, le=1, description="factor of the base rate at the end")

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One wave, that starts where the warm-up ends."""
        wave = Piece("cosine", self.warmup, float(epochs), 0.0, 1.0, self.final)
        return [level(0.0, self.warmup, 1.0), wave]


class PolynomialSchedule(_Schedule):
    """A power of the part that is left, over all epochs after the warm-up."""

    kind: Literal["polynomial"] = "polynomial"
    power: float = Field(
        default=1.0, gt=0, description="1: a straight line; above: faster at first"
    )
    final: float = Field(default=0.0, ge=0, le=1, description="factor of the base rate at the end")

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One fall, that starts where the warm-up ends."""
        fall = Piece("power", self.warmup, float(epochs), 0.0, 1.0, self.final, self.power)
        return [level(0.0, self.warmup, 1.0), fall]


class WarmupStableDecaySchedule(_Schedule):
    """A rise, a level, and a fall in the last epochs: its trunk does not know its length."""

    durations = ("warmup", "decay")

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

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """A level and a fall (Hu et al. 2024, arXiv:2404.06395, §4)."""
        turn = float(epochs) - self.decay
        return [level(0.0, turn, 1.0), line(turn, float(epochs), 1.0, self.final)]


class CyclicSchedule(_Schedule):
    """Triangles between `low` and the base rate (Smith 2017, arXiv:1506.01186)."""

    durations = ("warmup", "period")

    kind: Literal["cyclic"] = "cyclic"
    low: float = Field(ge=0, le=1, description="factor of the base rate between two triangles")
    period: float = Field(gt=0, description="epochs (also fractions) of a triangle")
    rise: float = Field(
        default=0.5, ge=0, le=1, description="part of each triangle in which the rate rises"
    )
    amplitude_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="what each triangle multiplies the next one's height by; 0.5 is `triangular2`",
    )

    def check(self, epochs: int) -> None:
        """Raises ValueError if the triangles are too many."""
        super().check(epochs)
        _check_length("period", self.period, pieces=2)

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """Two lines per triangle, from where the warm-up ends."""
        yield level(0.0, self.warmup, self.low)
        number = max(0, int((low - self.warmup) / self.period) - 1)
        while (start := self.warmup + number * self.period) < high:
            end = self.warmup + (number + 1) * self.period
            turn = end if self.rise == 1 else min(start + self.rise * self.period, end)
            top = self.low + (1 - self.low) * self.amplitude_decay**number
            yield line(start, turn, self.low, top)
            yield line(turn, end, top, self.low)
            number += 1


class OneCycleSchedule(_Schedule):
    """One rise and one fall over all epochs (Smith & Topin 2017, arXiv:1708.07120)."""

    kind: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(
        default=0.3, ge=0, le=1, description="part of the epochs in which the rate rises"
    )
    initial: float = Field(
        default=0.04, ge=0, le=1, description="factor of the base rate at the start"
    )
    final: float = Field(default=4e-6, ge=0, le=1, description="factor of the base rate at the end")
    shape: Literal["cosine", "linear"] = Field(default="cosine", description="of rise and fall")

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """A rise and a fall, that start where the warm-up ends."""
        start, end = self.warmup, float(epochs)
        peak = end if self.rise == 1 else start + self.rise * (end - start)
        before = level(0.0, start, self.initial)
        if self.shape == "linear":
            return [before, line(start, peak, self.initial, 1.0), line(peak, end, 1.0, self.final)]
        up = Piece("cosine", start, peak, 1.0, 2.0, self.initial)
        return [before, up, Piece("cosine", peak, end, 0.0, 1.0, self.final)]


class PlateauSchedule(_Schedule):
    """Lower once a metric no longer improves; the numbers of torch's ReduceLROnPlateau.

    As pieces it is its warm-up and the base rate. What a level is lowered to follows from what the
    validations before an epoch measured: `engine.schedule.plateau`.
    """

    kind: Literal["plateau"] = "plateau"
    metric: str | None = Field(
        default=None, description="the metric that must improve; none: the one of `metrics.best`"
    )
    mode: Literal["max", "min"] | None = Field(
        default=None,
        description="whether the largest or the smallest is best; none: as for `metrics.best`",
    )
    factor: float = Field(
        default=0.1, gt=0, lt=1, description="what the rate is multiplied by at a plateau"
    )
    patience: int = Field(
        default=10,
        ge=0,
        description="validations in a row without an improvement that are let pass; the rate falls "
        "after one more",
    )
    threshold: float = Field(
        default=1e-4, ge=0, description="what a value must be better by to count as an improvement"
    )
    threshold_mode: Literal["rel", "abs"] = Field(
        default="rel", description="whether `threshold` is a share of the best value, or a number"
    )
    cooldown: int = Field(
        default=0, ge=0, description="validations after a fall that count as no plateau"
    )
    floor: float = Field(
        default=0.0, ge=0, le=1, description="factor of the base rate below which it does not fall"
    )

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        if self.threshold_mode == "rel" and self.threshold >= 1:
            raise ValueError(
                f"threshold: {self.threshold:g} of the best value; expected a share below 1, or "
                "threshold_mode: abs"
            )
        return self

    def body(self, low: float, high: float, *, epochs: int) -> Iterable[Piece]:  # noqa: ARG002 - as `_Schedule` has it
        """One level piece."""
        return [level(0.0, float(epochs), 1.0)]

    @property
    def first_seen(self) -> int:
        """The first epoch whose validation counts: it comes once the warm-up has ended."""
        assert self.unit == "epochs", self
        return max(0, math.ceil(self.warmup) - 1)

    @property
    def first_lowered(self) -> int:
        """The first epoch that may have a lower rate: none before it, whatever is measured."""
        return self.first_seen + self.patience + 1


class CustomSchedule(_Schedule, Target):
    """A function of the user's: `target(t, **args)` is the factor at fractional epoch t."""

    kind: Literal["custom"] = "custom"


def _check_length(field: str, length: float, *, pieces: int) -> None:
    if pieces > length * MAX_PIECES_PER_EPOCH:
        raise ValueError(
            f"{field}: {length:g} epochs is too short; expected at least "
            f"{pieces / MAX_PIECES_PER_EPOCH:g}"
        )
