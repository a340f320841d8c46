"""A landscape as a picture: its contours from above beside its surface. Computes no loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.tasks.report.landscape import Computed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

# P points of an axis, Q squares between them whose corners are all finite

LOGARITHMIC_FROM = 20.0
"""Highest over lowest loss from which the colours and heights are logarithmic."""
BANDS, LINES, TICKS = 40, 10, 5
COLOURS = "viridis"
FIRST, SECOND = "first direction", "second direction"


def draw(computed: Computed, out: Path) -> None:
    """Writes the picture as PNG. Raises InputError if `out` cannot be written."""
    try:
        landscape_figure(computed).savefig(out, dpi=130, format="png", metadata={"Software": None})
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from error


def landscape_figure(computed: Computed) -> Figure:
    """Contours from above, and the surface: losses_PP has the first direction along its columns."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.8), layout="constrained")
    FigureCanvasAgg(figure)
    scale = _Scale(computed)
    heights_PP = scale.heights(computed.landscape.losses_PP)
    panels = figure.subplot_mosaic(
        [["above", "surface"]], per_subplot_kw={"surface": {"projection": "3d"}},
        width_ratios=[1.0, 1.05],
    )  # fmt: skip
    _contours(panels["above"], figure, computed, scale, heights_PP)
    _surface(panels["surface"], computed, scale, heights_PP)
    asked = computed.asked
    weights = "" if asked.artifact == "model" else ", average of the weights"
    gaps = f" · {computed.gaps} points not finite, left out" if computed.gaps else ""
    figure.suptitle(
        f"{computed.reference or computed.run} · epoch {asked.epoch}{weights} · validation loss of "
        f"{computed.landscape.num_samples} samples · {computed.landscape.centre:.4g} at the "
        f"checkpoint{gaps}",
        fontsize=12,
        parse_math=False,
    )
    return figure


class _Scale:
    """Loss → height and colour; logarithmic where losses differ by much."""

    def __init__(self, computed: Computed) -> None:
        low, high = computed.lowest, computed.highest
        self.logarithmic = low > 0 and high / low >= LOGARITHMIC_FROM
        self.low, self.high = low, high
        if self.logarithmic:
            self.low, self.high = math.log10(low), math.log10(high)
        if self.high - self.low <= 1e-9 * max(1.0, abs(self.low)):  # all the same
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def heights(self, losses_PP: npt.NDArray[np.float64]) -> Any:
        """Masked where there is no finite loss."""
        import numpy as np

        finite_PP = np.ma.masked_invalid(losses_PP)
        return np.ma.log10(finite_PP) if self.logarithmic else finite_PP

    def steps(self, count: int) -> npt.NDArray[np.float64]:
        """Heights from the lowest to the highest."""
        import numpy as np

        return np.linspace(self.low, self.high, count)

    def bands(self) -> npt.NDArray[np.float64]:
        """Steps for colours, a little beyond the lowest and the highest loss: both are coloured."""
        steps = self.steps(BANDS)
        beyond = 1e-6 * (self.high - self.low)
        steps[0] -= beyond
        steps[-1] += beyond
        return steps

    def text(self, height: float, _: Any = None) -> str:
        """The loss at that height."""
        return f"{10**height if self.logarithmic else height:.3g}"

    def label(self) -> str:
        """Of the colours."""
        return "validation loss" + (", logarithmic" if self.logarithmic else "")


def _contours(panel: Any, figure: Any, computed: Computed, scale: _Scale, heights_PP: Any) -> None:
    axis_P = computed.landscape.axis_P
    panel.set_facecolor("0.85")  # grey shows through where points are left out
    filled = panel.contourf(axis_P, axis_P, heights_PP, levels=scale.bands(), cmap=COLOURS)
    if heights_PP.max() > heights_PP.min():
        levels = scale.steps(LINES + 2)[1:-1]
        lines = panel.contour(
            axis_P,
            axis_P,
            heights_PP,
            levels=levels,
            colors="white",
            linewidths=0.7,
            alpha=0.8,
            linestyles="solid",
        )
        panel.clabel(lines, fmt=scale.text, fontsize=8)
    panel.plot([0], [0], marker="+", color="red", markersize=13, markeredgewidth=2)
    panel.annotate(
        "checkpoint", (0, 0), xytext=(9, -13), textcoords="offset points", color="white", fontsize=9
    )
    panel.set(xlabel=FIRST, ylabel=SECOND, aspect="equal")
    bar = figure.colorbar(filled, ax=panel, label=scale.label(), shrink=0.9)
    bar.set_ticks(
        scale.steps(TICKS + 1), labels=[scale.text(height) for height in scale.steps(TICKS + 1)]
    )


def _surface(panel: Any, computed: Computed, scale: _Scale, heights_PP: Any) -> None:
    """The squares whose four corners are finite: matplotlib's surface would draw through gaps."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.colors import Normalize
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    axis_P = computed.landscape.axis_P
    x_PP, y_PP = np.meshgrid(axis_P, axis_P)
    points_PP3 = np.stack([x_PP, y_PP, heights_PP.filled(np.nan)], axis=-1)
    corners = (points_PP3[:-1, :-1], points_PP3[:-1, 1:], points_PP3[1:, 1:], points_PP3[1:, :-1])
    squares_Q43 = np.stack(corners, axis=2).reshape(-1, 4, 3)
    squares_Q43 = squares_Q43[np.isfinite(squares_Q43).all(axis=(1, 2))]
    colours = mpl.colormaps[COLOURS](Normalize(scale.low, scale.high)(squares_Q43[..., 2].mean(1)))
    panel.add_collection3d(
        Poly3DCollection(
            squares_Q43, facecolors=colours, edgecolors=(0, 0, 0, 0.25), linewidths=0.3
        )
    )
    edge = float(axis_P[-1])
    panel.set(xlim=(-edge, edge), ylim=(-edge, edge), zlim=(scale.low, scale.high))
    ticks = scale.steps(TICKS)
    panel.set_zticks(ticks, labels=[scale.text(height) for height in ticks])
    places = [-edge, -edge / 2, 0.0, edge / 2, edge]
    names = [f"{place:.3g}" for place in places]
    panel.set_xticks(places, labels=names)
    panel.set_yticks(places, labels=names)
    panel.set(xlabel=FIRST, ylabel=SECOND)
    panel.set_zlabel("validation loss", labelpad=10)
    panel.view_init(elev=32, azim=-58)
    panel.set_box_aspect(None, zoom=0.86)  # else the outer label is cut off
