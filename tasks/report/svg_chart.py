"""Where the curves, ticks and texts of a line chart lie; templates/line_chart.svg writes them.

The page gives the colours, light or dark. Pure numbers and text, no NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from epochal.tasks.report.curves import Curve

WIDTH, HEIGHT = 640, 264
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 12, 12, HEIGHT - 38
"""The frame's sides, from the picture's left and top."""
LOGARITHMIC_FROM = 30.0
"""Highest over lowest value from which an axis is logarithmic, if all values are above 0."""
MAX_MARKS = 60
"""Points up to which each is marked, with its value where the pointer rests."""
COLOURS = 8
FEW_DECADES = 3
"""Powers of ten up to which a logarithmic axis has ticks between them."""
LARGEST = 1e150
"""Values beyond it are outside the frame: the difference of two larger ones may not be a number."""


@dataclass(frozen=True)
class Tick:
    """A value beside an axis. at: its place along the axis, in the picture."""

    at: str
    text: str


@dataclass(frozen=True)
class Mark:
    """A point of a line, with the text that shows its value."""

    x: str
    y: str
    text: str


@dataclass(frozen=True)
class Line:
    """A curve. path: SVG's `d` of it; band: that of the area between low and high, or nothing."""

    name: str
    colour: int
    path: str
    band: str
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Chart:
    """All that is drawn, in the units of the picture."""

    width: ClassVar[int] = WIDTH
    height: ClassVar[int] = HEIGHT
    left: ClassVar[int] = LEFT
    right: ClassVar[int] = RIGHT
    bottom: ClassVar[int] = BOTTOM

    x_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]


def line_chart(curves: Sequence[Curve], *, x_label: str, linear: bool = False) -> Chart | None:
    """The curves in one frame; None if no curve has a point.

    linear: keeps the axis of values linear also where they differ by powers of ten.
    """
    curves = [curve for curve in curves if curve.x]
    if not curves:
        return None
    frame = _Frame(curves, linear=linear)
    return Chart(
        x_label=x_label,
        x_ticks=[Tick(_text(frame.x(value)), f"{value:.0f}") for value in frame.x_ticks()],
        y_ticks=[Tick(_text(frame.y(value)), short(value)) for value in frame.y_ticks()],
        lines=[_line(frame, number, curve) for number, curve in enumerate(curves)],
    )


class _Frame:
    """From values to places in the picture."""

    def __init__(self, curves: Sequence[Curve], *, linear: bool) -> None:
        self.x_low = min(min(curve.x) for curve in curves)
        self.x_high = max(max(curve.x) for curve in curves)
        low = max(min(min(curve.low) for curve in curves), -LARGEST)
        high = max(min(max(max(curve.high) for curve in curves), LARGEST), low)
        self.logarithmic = not linear and low > 0 and high / low >= LOGARITHMIC_FROM
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
        room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
        self.low, self.high = low - room, high + room

    def x(self, value: float) -> float:
        """From the picture's left."""
        span = (self.x_high - self.x_low) or 1.0
        share = (value - self.x_low) / span if self.x_high > self.x_low else 0.5
        return LEFT + share * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        """From the picture's top."""
        height = math.log10(value) if self.logarithmic else value
        share = (height - self.low) / (self.high - self.low)
        return BOTTOM - share * (BOTTOM - TOP)

    def x_ticks(self) -> list[float]:
        """Whole numbers along the lower side: between them there is no update and no epoch."""
        values = ticks(self.x_low, self.x_high, most=9) or [self.x_low]
        return [value for value in values if value == round(value)]

    def y_ticks(self) -> list[float]:
        """Round values along the left side."""
        if not self.logarithmic:
            return ticks(self.low, self.high, most=6)
        first, last = math.floor(self.low), math.ceil(self.high)
        every = max(1, (last - first) // 6)
        parts = (1, 2, 5) if last - first <= FEW_DECADES else (1,)
        values = [part * 10.0**power for power in range(first, last + 1, every) for part in parts]
        return [
            value for value in values if value > 0 and self.low <= math.log10(value) <= self.high
        ]


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, `most` of them at most."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return []
    power = 10.0 ** math.floor(math.log10(span / most))
    steps = (size * power for size in (1, 2, 5, 10, 20))
    step = next(step for step in steps if span / step <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number as an axis shows it."""
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _line(frame: _Frame, number: int, curve: Curve) -> Line:
    mean = _places(frame, curve.x, curve.mean)
    band = ""
    if curve.has_band:
        high, low = (_places(frame, curve.x, values) for values in (curve.high, curve.low))
        band = f"{_path([*high, *reversed(low)])}Z"
    marks = [
        Mark(x, y, f"{curve.name} at {at:.0f}: {value:.6g}")
        for (x, y), at, value in zip(mean, curve.x, curve.mean, strict=True)
    ]
    return Line(
        name=curve.name,
        colour=number % COLOURS,
        path=_path(mean),
        band=band,
        marks=marks if len(marks) <= MAX_MARKS else [],
    )


def _places(
    frame: _Frame, x_values: Sequence[float], y_values: Sequence[float]
) -> list[tuple[str, str]]:
    return [(_text(frame.x(x)), _text(frame.y(y))) for x, y in zip(x_values, y_values, strict=True)]


def _path(places: Sequence[tuple[str, str]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in places)


def _text(length: float) -> str:
    return f"{length:.1f}".removesuffix(".0")
