"""What all charts of a page share: the document they are in, how they look, how they are named.

What a chart has beside its models is plain: a name for its place on the page, its curves to switch,
and its numbers as text. templates/report.js switches axes, curves and colours of the models by
their tags. Knows no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from bokeh.document import Document
from bokeh.models import (
    BasicTickFormatter,
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    FixedTicker,
    PanTool,
    PlainText,
    Range1d,
    WheelZoomTool,
)
from bokeh.models.annotations.geometry import Span
from bokeh.plotting import figure

from epochal.tasks.printable import printable

if TYPE_CHECKING:
    import numpy.typing as npt

Places = Mapping[str, "npt.NDArray[np.float64]"]
"""Where points lie on each axis."""
COLOURS = 16
"""Of runs, or of the curves of one run; templates/report.css names them in light and in dark."""
MAX_TICK_CHARS = 18
MAX_TICKS = 40
HEIGHT = 260
UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))
AT = [("epoch", "@epoch{0,0.00}"), ("update", "@update{0,0}"), ("samples", "@samples{0,0}")]
"""What a tooltip says of where the pointer is."""


@dataclass(frozen=True)
class Kind:
    """A curve of a chart, switched on and off for all runs. values: of each run, at its end.

    colour, dash: of the swatch; colour None: each run has its own.
    """

    number: int
    name: str
    colour: int | None
    dash: str
    values: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """A chart as the page has it. place: the element that it is drawn in. label: it in words.

    shared: whether it lies on the axis that is switched for all; zoomed: whether it has controls of
    its own for that. logarithmic: whether its y axis is, None where that cannot be asked. rows: its
    numbers under `heads`.
    """

    place: str
    label: str
    kinds: Sequence[Kind] = ()
    shared: bool = True
    zoomed: bool = False
    logarithmic: bool | None = None
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def unit_of(seconds: float) -> tuple[float, str]:
    """In what a time is counted: seconds of the unit, and its name."""
    fitting = [unit for unit in UNITS if seconds >= 2 * unit[0]]
    return fitting[-1] if fitting else UNITS[0]


@dataclass
class Charts:
    """All charts of a page, in one document.

    extents: how far each axis goes. runs: the names of the runs on the page.
    """

    extents: Mapping[str, tuple[float, float]]
    runs: Sequence[str]
    _roots: list[tuple[str, Any]] = field(default_factory=list)
    _x_range: Any = None

    def __post_init__(self) -> None:
        low, high = self.extents["epoch"]
        self._x_range = Range1d(start=low, end=high, name="x")

    def document(self) -> dict[str, Any]:
        """The document as JSON, and which of its models is drawn where.

        The same charts give the same text: models are numbered from the first one on.
        """
        document = Document()
        with document.models.freeze():  # else each root has all models looked through again
            for _, root in self._roots:
                document.add_root(root)
        numbers: dict[str, str] = {}
        body = _renumbered(document.to_json(deferred=False), numbers)
        roots = {numbers[root.id]: place for place, root in self._roots}
        return {"document": body, "roots": roots, "extents": self.extents}

    def plot(
        self,
        *,
        x_range: Any = None,
        y_range: Any = None,
        y_axis_type: Any = "linear",
        height: int = HEIGHT,
        wheel: bool = False,
    ) -> Any:
        """An empty chart; without a range of its own for x it lies on the axis that is shared."""
        shared = x_range is None
        dimensions: Any = "both" if wheel else "width"
        plot = figure(
            height=height, sizing_mode="stretch_width", toolbar_location=None,
            x_range=self._x_range if shared else x_range,
            y_range=DataRange1d(only_visible=True) if y_range is None else y_range,
            y_axis_type=y_axis_type,
            tools=[
                BoxZoomTool(dimensions=dimensions), PanTool(dimensions=dimensions),
                WheelZoomTool(dimensions=dimensions, modifiers={"ctrl": True}),
            ],
            background_fill_color=None, border_fill_color=None, outline_line_color=None,
            min_border=4, min_border_right=14, window_axis="x" if shared else "none",
            tags=["shared"] if shared else [],
        )  # fmt: skip
        plot.axis.major_label_text_font_size = plot.axis.axis_label_text_font_size = "12px"
        plot.axis.axis_label_text_font_style = "normal"
        plot.axis.minor_tick_line_color = None
        plot.axis.major_tick_in = 0
        for axis in plot.axis:
            if isinstance(axis.formatter, BasicTickFormatter):
                axis.formatter.power_limit_low, axis.formatter.power_limit_high = -4, 7
        if shared:
            plot.xaxis.axis_label = "epoch"
            plot.add_layout(Span(dimension="height", visible=False, tags=["cursor"]))
        return plot

    def add(self, plot: Any) -> str:
        """Puts a chart into the document. Returns the name of its place on the page."""
        plot.name = f"chart-{len(self._roots)}"
        self._roots.append((plot.name, plot))
        return str(plot.name)


def source_of(columns: Mapping[str, Any]) -> Any:
    """Any: Bokeh's own types know of lists as columns alone."""
    return ColumnDataSource(dict(columns))


def draw(
    plot: Any, source: Any, glyph: Any, tags: Sequence[str], *, name: str | None = None
) -> Any:
    """Adds the glyph alone: the methods of `figure` add four more, for selections."""
    return plot.add_glyph(source, glyph, name=name, tags=list(tags))


def compact(values: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """float32, which shows seven digits in half the space, where it can hold the values."""
    wide = np.asarray(values, dtype=np.float64)
    size = np.abs(wide[np.isfinite(wide) & (wide != 0)])
    info = np.finfo(np.float32)
    fits = not len(size) or (size.max() < info.max and size.min() > info.tiny)
    return wide.astype(np.float32) if fits else wide


def name_rows(plot: Any, rows: Sequence[str], *, centre: float = 0.0) -> None:
    """Names along the y axis, of at most `MAX_TICKS` rows."""
    every = -(-len(rows) // MAX_TICKS)
    shown = range(0, len(rows), every)
    plot.yaxis.ticker = FixedTicker(ticks=[row + centre for row in shown])
    plot.yaxis.major_label_overrides = {
        row + centre: PlainText(text=_short(printable(rows[row]))) for row in shown
    }
    plot.ygrid.visible = False


def _short(text: str) -> str:
    return text if len(text) <= MAX_TICK_CHARS else f"…{text[1 - MAX_TICK_CHARS :]}"


def _renumbered(value: Any, numbers: dict[str, str]) -> Any:
    """Models with ids by their place in the document: Bokeh counts on from page to page."""
    if isinstance(value, list | tuple):
        return [_renumbered(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _renumbered(item, numbers) for name, item in value.items() if name != "id"}
    own = value.get("id")
    if isinstance(own, str) and (value.get("type") == "object" or len(value) == 1):
        found["id"] = numbers.setdefault(own, f"p{len(numbers)}")
    elif "id" in value:
        found["id"] = own
    return found
