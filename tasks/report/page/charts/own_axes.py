"""Charts with axes of their own: bars of runs, samples on a map, the tree of epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.models import DataRange1d, HBar, HoverTool, Range1d, Scatter, Segment

from epochal.tasks.printable import printable
from epochal.tasks.report.page.charts.plot import (
    COLOURS,
    Chart,
    Charts,
    Kind,
    compact,
    draw,
    name_rows,
    source_of,
)

if TYPE_CHECKING:
    import numpy.typing as npt

# M samples on a map


@dataclass(frozen=True)
class TreeNode:
    """An epoch of a lineage: done or only planned, at a lane. parent: epoch and lane before it."""

    epoch: int
    lane: int
    parent: tuple[int, int] | None
    colour: int | None
    done: bool
    key: str
    runs: str
    shared: bool


def draw_bars(charts: Charts, title: str, parts: Mapping[str, Sequence[float]]) -> Chart | None:
    """A bar of values that add up for each run."""
    if not parts:
        return None
    rows = range(len(charts.runs))
    plot = charts.plot(
        x_range=DataRange1d(start=0, only_visible=True),
        y_range=Range1d(start=len(charts.runs) - 0.5, end=-0.5),
        height=90 + len(charts.runs) * 30,
    )
    source = source_of({"row": list(rows), "run": [*map(printable, charts.runs)]})
    left = np.zeros(len(charts.runs))
    for kind, (name, values) in enumerate(parts.items()):
        right = left + np.asarray(values, dtype=np.float64)
        source.add(compact(values), name)
        source.add(compact(left), f"from{kind}")
        source.add(compact(right), f"to{kind}")
        glyph = HBar(
            y="row", left=f"from{kind}", right=f"to{kind}", height=0.7, line_color=None,
            fill_alpha=0.85,
        )  # fmt: skip
        tags = [f"kind-{kind}", f"colour-{kind % COLOURS}", "area"]
        draw(plot, source, glyph, tags, name=name)
        left = right
    name_rows(plot, charts.runs)
    plot.xaxis.axis_label = "seconds"
    plot.add_tools(HoverTool(tooltips=[("", "@run"), ("$name", "@$name{0,0.00} s")]))
    told = "; ".join(
        f"{run}: {sum(values[row] for values in parts.values()):,.1f} s"
        for row, run in enumerate(charts.runs)
    )
    return Chart(
        place=charts.add(plot),
        label=f"{title}: {told}",
        kinds=[Kind(kind, name, kind % COLOURS, "solid") for kind, name in enumerate(parts)],
        shared=False,
        heads=("cause", *charts.runs),
        rows=[[name, *(f"{one:,.1f}" for one in values)] for name, values in parts.items()],
    )


def draw_points(
    charts: Charts,
    title: str,
    groups: Mapping[str, npt.NDArray[np.int64]],
    columns: Mapping[str, Any],
    counts: Sequence[int],
) -> Chart:
    """Samples of a data map. groups: name → rows of `columns` x, y, sample and class."""
    plot = charts.plot(
        x_range=Range1d(start=-0.01, end=0.51),
        y_range=Range1d(start=-0.02, end=1.02),
        height=380,
        wheel=True,
    )
    many = len(columns["x"]) > 2000  # noqa: PLR2004 - more would hide each other
    for kind, rows_M in enumerate(groups.values()):
        chosen = {name: _chosen(values, rows_M) for name, values in columns.items()}
        glyph = Scatter(
            x="x", y="y", size=4 if many else 6, fill_alpha=0.5 if many else 0.7,
            line_color=None,
        )  # fmt: skip
        tags = [f"kind-{kind}", f"colour-{kind}", "area"]
        draw(plot, source_of(chosen), glyph, tags)
    plot.xaxis.axis_label = "variability of p_true over the epochs"
    plot.yaxis.axis_label = "mean p_true"
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("sample", "@sample"), ("class", "@class"), ("mean p_true", "@y{0.000}"),
                ("variability", "@x{0.000}"),
            ]
        )
    )  # fmt: skip
    total = max(sum(counts), 1)
    shares = [f"{count:,} · {count / total:.1%}" for count in counts]
    told = ", ".join(f"{name} {share}" for name, share in zip(groups, shares, strict=True))
    return Chart(
        place=charts.add(plot),
        label=f"{title}: easy samples at the top left, hard ones at the bottom left. {told}",
        kinds=[
            Kind(kind, name, kind, "solid", [share])
            for kind, (name, share) in enumerate(zip(groups, shares, strict=True))
        ],
        shared=False,
        zoomed=True,
    )


def draw_tree(charts: Charts, title: str, nodes: Sequence[TreeNode], lanes: Sequence[str]) -> Chart:
    """Epochs from left to right; a lane for each run, from where it left the one before."""
    last = max(node.epoch for node in nodes)
    plot = charts.plot(
        x_range=Range1d(start=-0.7, end=last + 0.7),
        y_range=Range1d(start=len(lanes) - 0.5, end=-0.5),
        height=80 + max(2, len(lanes)) * 30,
    )  # fmt: skip
    by_look: dict[tuple[int | None, bool], list[TreeNode]] = {}
    for node in nodes:
        by_look.setdefault((node.colour, node.done), []).append(node)
    for (colour, _), alike in by_look.items():
        behind = [(node, node.parent) for node in alike if node.parent is not None]
        ends = {
            "x0": [parent[0] for _, parent in behind],
            "x1": [node.epoch for node, _ in behind],
            "y0": [parent[1] for _, parent in behind],
            "y1": [node.lane for node, _ in behind],
        }
        edge = Segment(x0="x0", y0="y0", x1="x1", y1="y1", line_width=2, line_alpha=0.6)
        draw(plot, source_of(ends), edge, [_colour_tag(colour), "line"])
    dots = []
    size = max(4, min(12, 500 // (last + 1)))
    for (colour, done), alike in by_look.items():
        shown = {
            "epoch": [node.epoch for node in alike],
            "lane": [node.lane for node in alike],
            "size": [size + 3 * node.shared for node in alike],
            "key": [node.key for node in alike],
            "runs": [printable(node.runs) for node in alike],
            "state": ["done" if done else "not done yet"] * len(alike),
        }
        glyph = Scatter(x="epoch", y="lane", size="size", line_width=2)
        tags = [_colour_tag(colour), "marks" if done else "ring"]
        dots.append(draw(plot, source_of(shown), glyph, tags))
    plot.xaxis.axis_label = "epoch"
    plot.xgrid.visible = plot.ygrid.visible = False
    name_rows(plot, lanes)
    plot.add_tools(
        HoverTool(
            renderers=dots,
            tooltips=[
                ("epoch", "@epoch"), ("", "@state"), ("of", "@runs"), ("stage key", "@key"),
            ],
        )
    )  # fmt: skip
    shared = sum(node.shared for node in nodes)
    label = (
        f"{title}: a tree of {len(nodes)} epochs of {', '.join(lanes)}; {shared} of them are shared"
    )
    return Chart(place=charts.add(plot), label=label, shared=False, zoomed=True)


def _chosen(values: Any, rows_M: npt.NDArray[np.int64]) -> Any:
    if isinstance(values, np.ndarray):
        return compact(values[rows_M]) if values.dtype.kind == "f" else values[rows_M]
    return [values[row] for row in rows_M.tolist()]


def _colour_tag(colour: int | None) -> str:
    return "colour-soft" if colour is None else f"colour-{colour % COLOURS}"
