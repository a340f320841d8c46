"""Loss and gradient norm by epoch as one small SVG, for Prefect's page. Text and numbers only.

Drawn here: the libraries that draw take a second to import, in a run that may last three, and
Prefect's markdown takes no scripts. The report has charts that can be hovered and zoomed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from epochal.tasks.runs.summary import EpochRow

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 34, 30
MAX_POINTS = 400
LOGARITHMIC_FROM = 30.0
"""Highest over lowest value from which the axis is logarithmic."""
_COLOURS = ("#1f77b4", "#d9600a")


@dataclass(frozen=True)
class _Line:
    """name, and a value for each epoch; None where there is none."""

    name: str
    values: Sequence[tuple[int, float | None]]

    @property
    def points(self) -> list[tuple[int, float]]:
        """Those that can be drawn, thinned to MAX_POINTS."""
        finite = [
            (epoch, value)
            for epoch, value in self.values
            if value is not None and math.isfinite(value)
        ]
        step = -(-len(finite) // MAX_POINTS) if finite else 1
        return [*finite[::step], *finite[-1:]] if step > 1 else finite


def curves_svg(rows: Sequence[EpochRow]) -> str:
    """Two charts side by side: loss of training and validation, and the mean gradient norm."""
    trained = _Line("training", [(row.epoch, row.loss) for row in rows])
    validated = _Line("validation", [(row.epoch, row.metrics.get("loss")) for row in rows])
    norms = _Line("mean of each epoch", [(row.epoch, row.gradient_norm) for row in rows])
    charts = [_chart("Loss", [trained, validated]), _chart("Gradient norm", [norms])]
    drawn = "".join(
        f'<g transform="translate({index * WIDTH} 0)">{chart}</g>'
        for index, chart in enumerate(charts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" '
        f'width="{2 * WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>'
    )


def _chart(title: str, lines: Sequence[_Line]) -> str:
    lines = [line for line in lines if line.points]
    parts = [f'<text x="{LEFT}" y="18" font-size="13" font-weight="600">{escape(title)}</text>']
    if not lines:
        return f'{parts[0]}<text x="{LEFT}" y="{HEIGHT // 2}" fill="#777">no values</text>'
    values = [value for line in lines for _, value in line.points]
    epochs = [epoch for line in lines for epoch, _ in line.points]
    axis = _Axis.over(values)
    first, last = min(epochs), max(epochs)

    def across(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (
            0.5 if last == first else (epoch - first) / (last - first)
        )

    for tick in axis.ticks:
        y = axis.place(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:.3g}</text>'
        )
    parts += [
        f'<text x="{across(epoch):.1f}" y="{HEIGHT - 10}" text-anchor="middle" '
        f'fill="#555">epoch {epoch}</text>'
        for epoch in dict.fromkeys((first, (first + last) // 2, last))
    ]
    right = WIDTH - RIGHT
    for colour, line in reversed(list(zip(_COLOURS, lines, strict=False))):
        placed = [(across(epoch), axis.place(value)) for epoch, value in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(placed) <= 30:  # noqa: PLR2004 - more would hide the line
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in placed
            ]
        parts.append(
            f'<text x="{right}" y="18" text-anchor="end" fill="{colour}">{escape(line.name)}</text>'
        )
        right -= 8 * len(line.name)
    return "".join(parts)


@dataclass(frozen=True)
class _Axis:
    """An upright axis from low to high."""

    low: float
    high: float
    logarithmic: bool

    @classmethod
    def over(cls, values: Sequence[float]) -> _Axis:
        """One that holds all values."""
        low, high = min(values), max(values)
        logarithmic = low > 0 and high / low >= LOGARITHMIC_FROM
        if not logarithmic:
            room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
            low, high = (0.0 if low >= 0 and low < high / 3 else low - room), high + room
        return cls(low, high, logarithmic)

    @property
    def ticks(self) -> list[float]:
        """Round values inside it."""
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = max(1, len(decades) // 5)
            found = [10.0**power for power in list(decades)[::every]]
        else:
            rough = (self.high - self.low) / 4
            unit = 10.0 ** math.floor(math.log10(rough))
            step = min((unit, 2 * unit, 5 * unit, 10 * unit), key=lambda one: abs(one - rough))
            first = math.ceil(self.low / step)
            found = [index * step for index in range(first, math.floor(self.high / step) + 1)]
        return [tick for tick in found if self.low <= tick <= self.high]

    def place(self, value: float) -> float:
        """Its distance from the picture's top."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
