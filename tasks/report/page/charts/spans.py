"""What is so over spans of the axis that charts share: a heat map, values that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import (
    BasicTickFormatter,
    HoverTool,
    LinearColorMapper,
    LogColorMapper,
    NumeralTickFormatter,
    Quad,
    Range1d,
)
from bokeh.models.annotations.legends import ColorBar
from bokeh.palettes import Viridis256

from epochal.tasks.printable import printable
from epochal.tasks.report.page.charts.curve import AXES
from epochal.tasks.report.page.charts.plot import (
    AT,
    COLOURS,
    Chart,
    Charts,
    Kind,
    Places,
    compact,
    draw,
    name_rows,
    source_of,
)

if TYPE_CHECKING:
    import numpy.typing as npt

# R rows of a heat map, K columns

ROW_HEIGHT = 18


def draw_heat(
    charts: Charts,
    title: str,
    rows: Sequence[str],
    values_RK: npt.NDArray[np.float64],
    *,
    left: Places,
    right: Places,
    percent: bool = False,
) -> Chart | None:
    """A row for each name, coloured by its values: of shares from 0 to 1, else by logarithm."""
    shown_RK = values_RK if percent else np.where(values_RK > 0, values_RK, np.nan)
    if not np.isfinite(shown_RK).any():
        return None
    mapper: Any
    if percent:
        mapper = LinearColorMapper(palette=Viridis256, low=0.0, high=1.0)
    else:
        low, high = float(np.nanmin(shown_RK)), float(np.nanmax(shown_RK))
        mapper = LogColorMapper(palette=Viridis256, low=low, high=high if high > low else low * 2)
    mapper.nan_color = "rgba(0, 0, 0, 0)"
    labels = _columns(rows)
    source = source_of(_sided(left, right) | {**right})
    plot = charts.plot(
        y_range=Range1d(start=len(rows), end=0),
        height=min(520, 70 + max(3, len(rows)) * ROW_HEIGHT),
    )
    for row, label in enumerate(labels):
        source.add(compact(shown_RK[row]), label)
        glyph = Quad(
            left="left_epoch", right="right_epoch", bottom=row, top=row + 1,
            fill_color={"field": label, "transform": mapper}, line_color=None,
        )  # fmt: skip
        draw(plot, source, glyph, [], name=label)
    name_rows(plot, rows, centre=0.5)
    form = NumeralTickFormatter(format="0%") if percent else BasicTickFormatter(precision=3)
    plot.add_layout(
        ColorBar(
            color_mapper=mapper, formatter=form, height=8, padding=2, margin=0,
            background_fill_color=None, major_label_text_font_size="11px",
        ),
        "above",
    )  # fmt: skip
    shown = "@$name{0.0%}" if percent else "@$name{0.[00000]}"
    plot.add_tools(HoverTool(tooltips=[("", "$name"), ("value", shown), *AT]))
    numbers = [_row_numbers(name, shown_RK[row]) for row, name in enumerate(rows)]
    told = "; ".join(f"{name} from {first} to {last}" for name, first, last, *_ in numbers[:6])
    return Chart(
        place=charts.add(plot),
        label=f"{title}: a heat map of {len(rows)} rows. {told}",
        heads=("row", "first", "last", "lowest", "highest"),
        rows=numbers,
    )


def draw_stack(
    charts: Charts, title: str, parts: Mapping[str, Sequence[float]], *, left: Places, right: Places
) -> Chart | None:
    """Values that add up, over spans of the shared axis: seconds by cause."""
    if not parts:
        return None
    plot = charts.plot()
    source = source_of(_sided(left, right) | {**right})
    below = np.zeros(len(right["update"]))
    for kind, (name, values) in enumerate(parts.items()):
        above = below + np.asarray(values, dtype=np.float64)
        source.add(compact(values), name)
        source.add(compact(below), f"bottom{kind}")
        source.add(compact(above), f"top{kind}")
        glyph = Quad(
            left="left_epoch", right="right_epoch", bottom=f"bottom{kind}", top=f"top{kind}",
            line_color=None, fill_alpha=0.85,
        )  # fmt: skip
        tags = [f"kind-{kind}", "run-0", f"colour-{kind % COLOURS}", "area"]
        draw(plot, source, glyph, tags, name=name)
        below = above
    plot.y_range.start = 0
    plot.yaxis.axis_label = "seconds"
    plot.add_tools(HoverTool(tooltips=[("", "$name"), ("seconds", "@$name{0,0.00}"), *AT]))
    sums = {name: float(np.sum(values)) for name, values in parts.items()}
    told = ", ".join(f"{name} {spent:,.1f} s" for name, spent in sums.items())
    return Chart(
        place=charts.add(plot),
        label=f"{title}: {told}",
        kinds=[
            Kind(kind, name, kind % COLOURS, "solid", [f"{spent:,.1f} s"])
            for kind, (name, spent) in enumerate(sums.items())
        ],
        heads=("cause", "seconds", "share"),
        rows=_shares(sums),
    )


def _row_numbers(name: str, values_K: npt.NDArray[np.float64]) -> list[str]:
    known = values_K[np.isfinite(values_K)]
    if not len(known):
        return [name, "–", "–", "–", "–"]
    return [name, *(f"{one:.4g}" for one in (known[0], known[-1], known.min(), known.max()))]


def _shares(sums: Mapping[str, float]) -> list[list[str]]:
    total = sum(sums.values()) or 1.0
    return [[name, f"{spent:,.2f}", f"{spent / total:.1%}"] for name, spent in sums.items()]


def _sided(left: Places, right: Places) -> dict[str, Any]:
    sides = (("left", left), ("right", right))
    return {f"{side}_{axis}": places[axis] for side, places in sides for axis in AXES}


def _columns(rows: Sequence[str]) -> list[str]:
    """Names of columns, all different, that Bokeh's tooltips can name: without braces."""
    taken = {*AXES, *(f"{side}_{axis}" for side in ("left", "right") for axis in AXES)}
    found: list[str] = []
    for row in rows:
        plain = printable(row).translate({ord("{"): "(", ord("}"): ")"})
        while plain in taken:
            plain += "'"
        taken.add(plain)
        found.append(plain)
    return found
