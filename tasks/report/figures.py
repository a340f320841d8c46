"""The data map and the kept fraction, drawn: functions of arrays alone, the same bytes each time.

Nothing global of matplotlib is read or set: a user's code may draw at the same time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.samples.scores import STATES
from epochal.tasks.printable import printable

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from epochal.data.samples.scores import DataMap
    from epochal.tasks.report.tables import KeptShares

# M samples on the map, P of them drawn, S states, B bins, C classes, E epochs, K of them whose
# classes are known, R rows of a heat map

MAX_POINTS = 12_000
"""Samples that a data map draws; its margins count all of them."""
COLOURS_OF_TAB10 = 10
MAX_LINES = 20
"""Classes with a line of their own; more make a heat map."""
MAX_NAMED_ROWS, MAX_ROWS = 48, 240
"""Rows of a heat map with a class's name beside them; rows at all: more classes share them."""
BINS = 60
HEAT = "viridis"
FOR_EPOCH = "for epoch"
"""A plan is made at the end of the epoch before: after the last one there is one for the next."""
DPI = 170
HIGHEST_SPREAD = 0.5
"""The standard deviation of numbers from 0 to 1 is no larger."""


@dataclass(frozen=True)
class Theme:
    """Colours of a picture. states: of `STATES`."""

    paper: str
    ink: str
    faint: str
    states: tuple[str, str, str, str]
    all_samples: str


LIGHT = Theme(
    paper="#ffffff",
    ink="#24292f",
    faint="#d8dee4",
    states=("#3b7dd8", "#2fa37c", "#e08a1e", "#d1373f"),
    all_samples="#24292f",
)
DARK = Theme(
    paper="#161b22",
    ink="#d7dde4",
    faint="#30363d",
    states=("#5a9cf5", "#45c598", "#f2a541", "#ff6b70"),
    all_samples="#f0f3f6",
)


def new_figure(theme: Theme, *, width: float, height: float) -> Figure:
    """An empty figure in inches, with a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def drawable(text: str) -> str:
    """`text` as the font can draw it: a character that it lacks is a box, and a warning less."""
    from matplotlib.font_manager import findfont, get_font

    has = get_font(findfont("DejaVu Sans")).get_char_index
    return "".join(one if one == "\n" or has(ord(one)) else "□" for one in printable(text))


def as_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure's bytes, without a date or a version in them."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, dpi=dpi, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor()
    )
    return buffer.getvalue()


def data_map_png(places: DataMap, *, theme: Theme = LIGHT) -> bytes:
    """`data_map_figure` as PNG."""
    return as_png(data_map_figure(places, theme=theme))


def data_map_figure(places: DataMap, *, theme: Theme = LIGHT) -> Figure:
    """Mean of `p_true` against its variability (Swayamdipta et al. 2020), one point per sample.

    Of more than 12,000 samples those with the smallest hash of the id are drawn; the margins and
    the legend count all.
    """
    figure = new_figure(theme, width=6.6, height=5.3)
    panels = figure.subplot_mosaic(
        [["top", "legend"], ["map", "right"]], width_ratios=[5, 1.55], height_ratios=[1.25, 5]
    )
    chosen_P = np.argsort(places.lot_M, kind="stable")[:MAX_POINTS]
    colours_P = np.array(theme.states, dtype=object)[places.state_M[chosen_P]]
    panel = panels["map"]
    many = len(chosen_P) > MAX_POINTS // 10
    panel.scatter(
        places.variability_M[chosen_P],
        places.mean_p_true_M[chosen_P],
        c=colours_P.tolist(),
        s=5 if many else 16,
        alpha=0.45 if many else 0.7,
        linewidths=0,
    )
    panel.set(xlim=(-0.01, HIGHEST_SPREAD + 0.01), ylim=(-0.02, 1.02))
    panel.set_xlabel("variability of p_true over the epochs", color=theme.ink)
    panel.set_ylabel("mean p_true", color=theme.ink)
    for x, y, text in ((0.99, 0.97, "easy"), (0.99, 0.50, "ambiguous"), (0.99, 0.03, "hard")):
        panel.text(
            x, y, text, color=theme.ink, alpha=0.55, ha="right", va="center", fontsize=9,
            transform=panel.transAxes, style="italic",
        )  # fmt: skip
    is_state_SM = [places.state_M == state for state in range(len(STATES))]
    _margin(
        panels["top"], [places.variability_M[is_state_M] for is_state_M in is_state_SM], theme,
        panel.get_xlim(),
    )  # fmt: skip
    _margin(
        panels["right"], [places.mean_p_true_M[is_state_M] for is_state_M in is_state_SM], theme,
        panel.get_ylim(), sideways=True,
    )  # fmt: skip
    _state_legend(panels["legend"], [int(is_state_M.sum()) for is_state_M in is_state_SM], theme)
    for name in ("map", "top", "right"):
        _dress(panels[name], theme)
    drawn = "" if len(chosen_P) == len(places) else f", {len(chosen_P):,} of them drawn"
    out = f"; {places.left_out:,} seen less than twice" if places.left_out else ""
    title = f"Data map of {len(places):,} samples{drawn}{out}"
    figure.suptitle(title, color=theme.ink, fontsize=11)
    return figure


def _margin(
    panel: Any, values: Sequence[npt.NDArray[Any]], theme: Theme, span: tuple[float, float],
    *, sideways: bool = False,
) -> None:  # fmt: skip
    """Counts of all samples along one axis of the map."""
    base_B = np.zeros(BINS)
    for values_M, colour in zip(values, theme.states, strict=True):
        count_B, edges = np.histogram(values_M, bins=BINS, range=span)
        panel.stairs(
            base_B + count_B, edges, baseline=base_B, fill=True, color=colour,
            orientation="horizontal" if sideways else "vertical",
        )  # fmt: skip
        base_B = base_B + count_B
    panel.set(**{"ylim" if sideways else "xlim": span})
    panel.set_xticks([])
    panel.set_yticks([])


def _state_legend(panel: Any, count_S: Sequence[int], theme: Theme) -> None:
    from matplotlib.lines import Line2D

    panel.axis("off")
    panel.legend(
        handles=[
            Line2D(
                [], [], marker="o", linestyle="", markersize=6, color=colour,
                label=f"{name}\n{count:,} · {count / sum(count_S):.1%}",
            )
            for name, count, colour in zip(STATES, count_S, theme.states, strict=True)
        ],
        loc="center", fontsize=6.5, labelcolor=theme.ink, frameon=False, labelspacing=0.7,
        handletextpad=0.2, borderpad=0,
    )  # fmt: skip


def kept_png(shares: KeptShares, *, theme: Theme = LIGHT) -> bytes:
    """`kept_figure` as PNG."""
    return as_png(kept_figure(shares, theme=theme))


def kept_figure(shares: KeptShares, *, theme: Theme = LIGHT) -> Figure:
    """The share of the samples that each epoch was to train on: of all, and by class.

    Few classes are lines; of more than 20 each is a row of a heat map. Samples whose class is not
    known (label -1) are in the line of all.
    """
    known = [place for place, label in enumerate(shares.labels_C) if label >= 0]
    if len(known) > MAX_LINES:
        figure = _kept_heat(shares, known, theme)
    else:
        figure = _kept_lines(shares, known, theme)
    figure.suptitle(_kept_title(shares), color=theme.ink, fontsize=11)
    return figure


def _kept_lines(shares: KeptShares, known: Sequence[int], theme: Theme) -> Figure:
    figure = new_figure(theme, width=6.6, height=4.2)
    panel = figure.subplots()
    if len(known) > 1:
        import matplotlib as mpl

        colours = mpl.colormaps["tab10" if len(known) <= COLOURS_OF_TAB10 else "tab20"]
        for number, place in enumerate(known):
            panel.plot(
                shares.class_epochs_K, shares.share_KC[:, place], color=colours(number),
                linewidth=1.2, marker=".", markersize=4, alpha=0.85,
                label=f"class {shares.labels_C[place]}",
            )  # fmt: skip
    _all_line(panel, shares, theme)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=theme.ink)
    panel.set_xlabel(FOR_EPOCH, color=theme.ink)
    _dress(panel, theme)
    return figure


def _kept_title(shares: KeptShares) -> str:
    drawn, note = len(shares.class_epochs_K), ""
    if not drawn:
        note = "; too many classes"
    elif drawn < len(shares.epochs_E):
        note = f"; classes at {drawn} of them"
    return f"Share of the samples kept for each of {len(shares.epochs_E)} epochs{note}"


def _all_line(panel: Any, shares: KeptShares, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    panel.plot(
        shares.epochs_E, shares.share_E, color=theme.all_samples, linewidth=2.4, marker="o",
        markersize=4, label="all",
    )  # fmt: skip
    panel.set_ylim(0, 1.04)
    panel.set_ylabel("kept", color=theme.ink)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _kept_heat(shares: KeptShares, known: Sequence[int], theme: Theme) -> Figure:
    """A row for each class, those that are kept most at the top."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    share_CK = shares.share_KC[:, known].T
    order_C = np.argsort(-_mean_of_known(share_CK, axis=1), kind="stable")
    names = [str(shares.labels_C[known[place]]) for place in order_C]
    share_RK = share_CK[order_C]
    together = -(-len(names) // MAX_ROWS)
    if together > 1:
        parts = range(0, len(names), together)
        share_RK = np.stack([_mean_of_known(share_RK[at : at + together], axis=0) for at in parts])
    figure = new_figure(theme, width=6.6, height=4.2 + min(len(share_RK), 120) * 0.04)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    _all_line(above, shares, theme)
    epochs_K = np.asarray(shares.class_epochs_K, dtype=np.float64)
    rows_R = np.arange(len(share_RK))
    cells = below.pcolormesh(
        epochs_K, rows_R, share_RK, vmin=0.0, vmax=1.0, cmap=HEAT, shading="nearest"
    )
    below.invert_yaxis()
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel(FOR_EPOCH, color=theme.ink)
    if len(names) <= MAX_NAMED_ROWS:
        below.set_yticks(rows_R, labels=names)
        below.set_ylabel("class", color=theme.ink)
    else:
        each = f", {together} in a row" if together > 1 else ""
        below.set_ylabel(f"{len(names):,} classes{each}", color=theme.ink)
        below.set_yticks([])
    bar = figure.colorbar(cells, ax=below, format=PercentFormatter(1.0, decimals=0), pad=0.01)
    bar.ax.tick_params(colors=theme.ink, labelsize=8)
    bar.outline.set_visible(False)
    _dress(above, theme)
    _dress(below, theme)
    if len(names) <= MAX_NAMED_ROWS:
        below.tick_params(axis="y", labelsize=6)
    return figure


def _mean_of_known(share_CK: npt.NDArray[Any], *, axis: int) -> npt.NDArray[Any]:
    """The mean of the values that are not NaN (a table may lack a class); NaN if there is none."""
    known_CK = np.isfinite(share_CK)
    count = known_CK.sum(axis=axis)
    mean: npt.NDArray[Any] = np.where(known_CK, share_CK, 0.0).sum(axis=axis) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def _dress(panel: Any, theme: Theme) -> None:
    """Give it the theme's colours, a faint grid, and no box."""
    panel.set_facecolor(theme.paper)
    panel.tick_params(colors=theme.ink, labelsize=8)
    panel.grid(visible=True, color=theme.faint, linewidth=0.6)
    panel.set_axisbelow(True)
    for name, spine in panel.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(theme.faint)
