"""Curves over the axis that charts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import HoverTool, NumeralTickFormatter, Scatter, VArea
from bokeh.models import Line as LineGlyph

from epochal.tasks.printable import printable
from epochal.tasks.report.page.charts.curve import Curve
from epochal.tasks.report.page.charts.plot import (
    AT,
    COLOURS,
    Chart,
    Charts,
    Kind,
    Places,
    compact,
    draw,
    source_of,
)

DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot")
MARKED = 80
"""Points up to which each is marked."""
MAX_TOLD = 6
SPREAD_FOR_LOG = 50.0
_HEADS = ("first", "last", "lowest", "at update", "highest", "at update", "points")


@dataclass(frozen=True, eq=False)
class Line:
    """A curve to draw: which of the runs it is of, and which of the chart's curves it is.

    noisy: whether it may be smoothed.
    """

    curve: Curve
    places: Places
    run: int = 0
    kind: int = 0
    noisy: bool = False


def draw_lines(
    charts: Charts,
    title: str,
    lines: Sequence[Line],
    *,
    names: Sequence[str],
    linear: bool = False,
    percent: bool = False,
) -> Chart | None:
    """Curves over the shared axis, each with the band of the values that its points stand for.

    names: of the curves, by `Line.kind`. None where no line has a point.
    """
    drawn = [line for line in lines if line.curve.x]
    if not drawn:
        return None
    logarithmic = not linear and not percent and _spans_decades(drawn)
    plot = charts.plot(y_axis_type="log" if logarithmic else "linear")
    if percent:
        plot.yaxis.formatter = NumeralTickFormatter(format="0%")
    sources: dict[Any, Any] = {}
    for number, line in enumerate(drawn):
        x = (line.run, tuple(line.curve.x))
        source = sources.setdefault(x, source_of({**line.places}))
        _draw_line(charts, plot, source, line, number, printable(names[line.kind]))
    plot.add_tools(
        HoverTool(
            tooltips=[("", "$name"), ("value", "$snap_y{0.[00000]}"), *AT],
            renderers=[one for one in plot.renderers if "line" in one.tags],
            line_policy="nearest",
        )
    )
    used = sorted({line.kind for line in drawn})
    return Chart(
        place=charts.add(plot),
        label=_told(title, drawn, names, charts.runs),
        kinds=[_kind(charts, kind, names[kind], drawn, percent=percent) for kind in used],
        logarithmic=None if percent or linear else logarithmic,
        heads=("curve", *(["run"] if len(charts.runs) > 1 else []), *_HEADS),
        rows=[_numbers(line, names[line.kind], charts.runs) for line in drawn],
    )


def _draw_line(charts: Charts, plot: Any, source: Any, line: Line, number: int, name: str) -> None:
    curve, colour, dash = line.curve, *_style(charts, line)
    tags = [f"kind-{line.kind}", f"run-{line.run}", f"colour-{colour}"]
    mean, low, high = (f"{part}{number}" for part in ("mean", "low", "high"))
    source.add(compact(curve.mean), mean)
    if curve.has_band:
        source.add(compact(curve.low), low)
        source.add(compact(curve.high), high)
        draw(plot, source, VArea(x="epoch", y1=low, y2=high, fill_alpha=0.18), [*tags, "band"])
    label = name if len(charts.runs) == 1 else f"{name} · {printable(charts.runs[line.run])}"
    main = len(charts.runs) > 1 or line.kind == 0
    glyph = LineGlyph(x="epoch", y=mean, line_width=2 if main else 1.4, line_dash=dash)
    noisy = ["noisy"] if line.noisy else []
    draw(plot, source, glyph, [*tags, *noisy, "line"], name=label)
    if curve.marked and len(curve.x) <= MARKED:
        draw(plot, source, Scatter(x="epoch", y=mean, size=5 if main else 4), [*tags, "marks"])


def _style(charts: Charts, line: Line) -> tuple[int, str]:
    if len(charts.runs) == 1:
        return line.kind % COLOURS, "solid"
    return line.run % COLOURS, DASHES[line.kind % len(DASHES)]


def _kind(charts: Charts, kind: int, name: str, drawn: Sequence[Line], *, percent: bool) -> Kind:
    last = {line.run: line.curve.mean[-1] for line in drawn if line.kind == kind}
    values = [
        "–" if run not in last else f"{last[run]:.1%}" if percent else f"{last[run]:.4g}"
        for run in range(len(charts.runs))
    ]
    single = len(charts.runs) == 1
    dash = "solid" if single else DASHES[kind % len(DASHES)]
    return Kind(kind, name, kind % COLOURS if single else None, dash, values)


def _spans_decades(lines: Sequence[Line]) -> bool:
    low = min(min(line.curve.low) for line in lines)
    return low > 0 and max(max(line.curve.high) for line in lines) / low >= SPREAD_FOR_LOG


def _told(title: str, lines: Sequence[Line], names: Sequence[str], runs: Sequence[str]) -> str:
    told = [
        f"{names[line.kind]}{f' of {runs[line.run]}' if len(runs) > 1 else ''} from "
        f"{line.curve.mean[0]:.4g} to {line.curve.mean[-1]:.4g}"
        for line in lines[:MAX_TOLD]
    ]
    more = f"; and {len(lines) - MAX_TOLD} more" * (len(lines) > MAX_TOLD)
    return f"{title}: {'; '.join(told)}{more}"


def _numbers(line: Line, name: str, runs: Sequence[str]) -> list[str]:
    curve = line.curve
    lowest, highest = int(np.argmin(curve.low)), int(np.argmax(curve.high))
    return [
        name,
        *([runs[line.run]] if len(runs) > 1 else []),
        f"{curve.mean[0]:.6g}",
        f"{curve.mean[-1]:.6g}",
        f"{curve.low[lowest]:.6g}",
        f"{curve.x[lowest]:,.0f}",
        f"{curve.high[highest]:.6g}",
        f"{curve.x[highest]:,.0f}",
        f"{len(curve.x):,}",
    ]
