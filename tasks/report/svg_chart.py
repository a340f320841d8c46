"""Curves as SVG that a page shows in its own colours, light or dark. Pure text, no NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epochal.tasks.report.curves import Curve
from epochal.tasks.report.html_text import Html, element, joined

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
LOGARITHMIC_FROM = 30.0
"""Highest over lowest value from which an axis is logarithmic, if all values are above 0."""
MAX_MARKS = 60
"""Points up to which each is marked, with its value where the pointer rests."""
COLOURS = 8
FEW_DECADES = 3
"""Powers of ten up to which an axis has ticks between them."""
LARGEST = 1e150
"""Values beyond it are outside the frame: the difference of two larger ones may not be a number."""


def line_chart(curves: Sequence[Curve], *, x_label: str, linear: bool = False) -> Html:
    """The curves in one frame, with a legend below if they are several.

    linear: the axis is so whatever the values are. Curves without a point are left out; nothing is
    drawn of none.
    """
    curves = [curve for curve in curves if curve.x]
    if not curves:
        return Html("")
    frame = _Frame(curves, linear=linear)
    drawn = [_grid(frame, x_label), *(_band(frame, *one) for one in enumerate(curves))]
    drawn += [_line(frame, *one) for one in enumerate(curves)]
    svg = element(
        "svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img",
        aria_label=", ".join(curve.name for curve in curves),
    )  # fmt: skip
    if len(curves) == 1:
        return svg
    names = [
        element("span", element("i", class_=f"c{number % COLOURS}"), curve.name)
        for number, curve in enumerate(curves)
    ]
    return joined(svg, element("div", *names, class_="legend"))


class _Frame:
    """Where values lie in the picture."""

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
        """Of the picture, from its left."""
        span = (self.x_high - self.x_low) or 1.0
        share = (value - self.x_low) / span if self.x_high > self.x_low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of the picture, from its top."""
        height = math.log10(value) if self.logarithmic else value
        share = (height - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def y_ticks(self) -> list[float]:
        """Round values along the left side."""
        if not self.logarithmic:
            return ticks(self.low, self.high, most=6)
        first, last = math.floor(self.low), math.ceil(self.high)
        every = max(1, (last - first) // 6)
        parts = (1, 2, 5) if last - first <= FEW_DECADES else (1,)
        found = [part * 10.0**ten for ten in range(first, last + 1, every) for part in parts]
        return [one for one in found if one > 0 and self.low <= math.log10(one) <= self.high]


def ticks(low: float, high: float, *, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from low to high, `most` of them at most."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return []
    ten = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * ten for size in (1, 2, 5, 10, 20) if span / (size * ten) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number as an axis shows it."""
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _grid(frame: _Frame, x_label: str) -> Html:
    parts: list[Html] = []
    bottom = HEIGHT - BOTTOM
    for value in frame.y_ticks():
        y = _n(frame.y(value))
        parts.append(element("path", d=f"M{LEFT} {y}H{WIDTH - RIGHT}", class_="grid"))
        parts.append(element("text", short(value), x=LEFT - 7, y=y, dy="0.35em", class_="y"))
    for value in ticks(frame.x_low, frame.x_high, most=9) or [frame.x_low]:
        if value != round(value):
            continue  # neither an update nor an epoch
        x = _n(frame.x(value))
        parts.append(element("path", d=f"M{x} {bottom}v4", class_="axis"))
        parts.append(element("text", f"{value:.0f}", x=x, y=bottom + 16, class_="x"))
    parts.append(element("path", d=f"M{LEFT} {bottom}H{WIDTH - RIGHT}", class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(element("text", x_label, x=middle, y=HEIGHT - 3, class_="x"))
    return joined(*parts)


def _band(frame: _Frame, number: int, curve: Curve) -> Html:
    if not curve.has_band:
        return Html("")
    there = [f"{_n(frame.x(x))} {_n(frame.y(y))}" for x, y in zip(curve.x, curve.high, strict=True)]
    back = [f"{_n(frame.x(x))} {_n(frame.y(y))}" for x, y in zip(curve.x, curve.low, strict=True)]
    path = "L".join([*there, *reversed(back)])
    return element("path", d=f"M{path}Z", class_=f"band c{number % COLOURS}")


def _line(frame: _Frame, number: int, curve: Curve) -> Html:
    places = [
        (_n(frame.x(x)), _n(frame.y(y)), x, y) for x, y in zip(curve.x, curve.mean, strict=True)
    ]
    colour = f"c{number % COLOURS}"
    parts = [
        element(
            "path", d="M" + "L".join(f"{x} {y}" for x, y, _, _ in places), class_=f"line {colour}"
        )
    ]
    if len(places) <= MAX_MARKS:
        parts += [
            element(
                "circle", element("title", f"{curve.name} at {at:.0f}: {value:.6g}"),
                cx=x, cy=y, r=2.6, class_=colour,
            )
            for x, y, at, value in places
        ]  # fmt: skip
    return joined(*parts)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
