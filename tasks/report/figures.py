"""The data map and the kept fraction as PNG: functions of arrays alone, the same bytes each time.

Nothing global of matplotlib is read or set: a user's code may draw at the same time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epochal.data.samples.scores import STATES

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from epochal.data.samples.scores import DataMap
    from epochal.tasks.report.tables import KeptShares

# M samples on the map, C classes, K epochs, R rows of a heat map

MAX_POINTS = 12_000
"""Samples that a data map draws; its margins count all of them."""
COLOURS_OF_TAB10 = 10
MAX_LINES = 20
"""Classes with a line of their own; more make a heat map."""
MAX_NAMED_ROWS, MAX_ROWS = 48, 240
"""Rows of a heat map with a class's name beside them; rows at all: more classes share them."""
BINS = 60
HEAT = "viridis"
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


def as_png(figure: Figure, *, dpi: int = DPI) -> bytes:
    """The figure's bytes, without a date or a version in them."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, dpi=dpi, format="png", metadata={"Software": None}, facecolor=figure.get_facecolor()
    )
    return buffer.getvalue()


def data_map_png(found: DataMap, *, theme: Theme = LIGHT) -> bytes:
    """Mean of `p_true` against its variability (Swayamdipta et al. 2020), a point for a sample.

    Of more than 12,000 samples those with the smallest hash of the id are drawn; the margins and
    the legend count all.
    """
    import numpy as np

    figure = new_figure(theme, width=6.6, height=5.3)
    panels = figure.subplot_mosaic(
        [["top", "legend"], ["map", "right"]], width_ratios=[5, 1.55], height_ratios=[1.25, 5]
    )
    chosen_P = np.argsort(found.lot_M, kind="stable")[:MAX_POINTS]
    colours_P = np.array(theme.states, dtype=object)[found.state_M[chosen_P]]
    panel = panels["map"]
    many = len(chosen_P) > MAX_POINTS // 10
    panel.scatter(
        found.variability_M[chosen_P],
        found.mean_p_true_M[chosen_P],
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
    by_state = [found.state_M == state for state in range(len(STATES))]
    _margin(panels["top"], [found.variability_M[one] for one in by_state], theme, (-0.01, 0.51))
    _margin(
        panels["right"], [found.mean_p_true_M[one] for one in by_state], theme, (-0.02, 1.02),
        sideways=True,
    )  # fmt: skip
    _state_legend(panels["legend"], by_state, theme)
    for name in ("map", "top", "right"):
        _dress(panels[name], theme)
    drawn = "" if len(chosen_P) == len(found) else f", {len(chosen_P):,} of them drawn"
    out = f"; {found.left_out:,} seen less than twice" if found.left_out else ""
    figure.suptitle(f"Data map of {len(found):,} samples{drawn}{out}", color=theme.ink, fontsize=11)
    return as_png(figure)


def _margin(
    panel: Any, values: Sequence[npt.NDArray[Any]], theme: Theme, span: tuple[float, float],
    *, sideways: bool = False,
) -> None:  # fmt: skip
    """Counts of all samples along one axis of the map."""
    import numpy as np

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


def _state_legend(panel: Any, by_state: Sequence[npt.NDArray[Any]], theme: Theme) -> None:
    total = len(by_state[0])
    panel.axis("off")
    for state, (name, is_in_M) in enumerate(zip(STATES, by_state, strict=True)):
        count = int(is_in_M.sum())
        y = 0.92 - 0.27 * state
        panel.plot([0.0], [y], "o", color=theme.states[state], markersize=6, clip_on=False)
        panel.text(
            0.07, y, f"{name}\n{count:,} · {count / total:.1%}", color=theme.ink, va="center",
            fontsize=7,
        )  # fmt: skip
    panel.set(xlim=(0, 1), ylim=(0, 1))


def kept_png(found: KeptShares, *, theme: Theme = LIGHT) -> bytes:
    """The share of the samples that each epoch was to train on: of all, and by class."""
    known = [place for place, label in enumerate(found.labels_C) if label >= 0]
    if len(known) > MAX_LINES:
        return _kept_heat(found, known, theme)
    figure = new_figure(theme, width=6.6, height=4.2)
    panel = figure.subplots()
    if len(known) > 1:
        import matplotlib as mpl

        colours = mpl.colormaps["tab10" if len(known) <= COLOURS_OF_TAB10 else "tab20"]
        for number, place in enumerate(known):
            panel.plot(
                found.class_epochs_K, found.share_KC[:, place], color=colours(number),
                linewidth=1.2, marker=".", markersize=4, alpha=0.85,
                label=f"class {found.labels_C[place]}",
            )  # fmt: skip
    _all_line(panel, found, theme)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, labelcolor=theme.ink)
    panel.set_xlabel("epoch", color=theme.ink)
    _dress(panel, theme)
    figure.suptitle(_kept_title(found), color=theme.ink, fontsize=11)
    return as_png(figure)


def _kept_title(found: KeptShares) -> str:
    drawn, note = len(found.class_epochs_K), ""
    if not drawn:
        note = "; too many classes"
    elif drawn < len(found.epochs_E):
        note = f"; classes at {drawn} of them"
    return f"Share of the samples kept for each of {len(found.epochs_E)} epochs{note}"


def _all_line(panel: Any, found: KeptShares, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    panel.plot(
        found.epochs_E, found.share_E, color=theme.all_samples, linewidth=2.4, marker="o",
        markersize=4, label="all",
    )  # fmt: skip
    panel.set_ylim(0, 1.04)
    panel.set_ylabel("kept", color=theme.ink)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _kept_heat(found: KeptShares, known: Sequence[int], theme: Theme) -> bytes:
    """A row for each class, those that are kept most at the top."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    share_CK = found.share_KC[:, known].T
    order_C = np.argsort(-_mean_of_known(share_CK, axis=1), kind="stable")
    names = [str(found.labels_C[known[place]]) for place in order_C]
    share_RK = share_CK[order_C]
    together = -(-len(names) // MAX_ROWS)
    if together > 1:
        parts = range(0, len(names), together)
        share_RK = np.stack([_mean_of_known(share_RK[at : at + together], axis=0) for at in parts])
    figure = new_figure(theme, width=6.6, height=4.2 + min(len(share_RK), 120) * 0.04)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3])
    _all_line(above, found, theme)
    epochs_K = np.asarray(found.class_epochs_K, dtype=np.float64)
    rows_R = np.arange(len(share_RK))
    drawn = below.pcolormesh(
        epochs_K, rows_R, share_RK, vmin=0.0, vmax=1.0, cmap=HEAT, shading="nearest"
    )
    below.invert_yaxis()
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel("epoch", color=theme.ink)
    if len(names) <= MAX_NAMED_ROWS:
        below.set_yticks(rows_R, labels=names)
        below.set_ylabel("class", color=theme.ink)
    else:
        each = f", {together} in a row" if together > 1 else ""
        below.set_ylabel(f"{len(names):,} classes{each}", color=theme.ink)
        below.set_yticks([])
    bar = figure.colorbar(drawn, ax=below, format=PercentFormatter(1.0, decimals=0), pad=0.01)
    bar.ax.tick_params(colors=theme.ink, labelsize=8)
    bar.outline.set_visible(False)
    _dress(above, theme)
    _dress(below, theme)
    if len(names) <= MAX_NAMED_ROWS:
        below.tick_params(axis="y", labelsize=6)
    figure.suptitle(_kept_title(found), color=theme.ink, fontsize=11)
    return as_png(figure)


def _mean_of_known(share_CK: npt.NDArray[Any], *, axis: int) -> npt.NDArray[Any]:
    """The mean without NaN: a table may lack a class; NaN of nothing."""
    import numpy as np

    known_CK = np.isfinite(share_CK)
    count = known_CK.sum(axis=axis)
    mean: npt.NDArray[Any] = np.where(known_CK, share_CK, 0.0).sum(axis=axis) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)


def _dress(panel: Any, theme: Theme) -> None:
    """The theme's colours, no box, a faint grid."""
    panel.set_facecolor(theme.paper)
    panel.tick_params(colors=theme.ink, labelsize=8)
    panel.grid(visible=True, color=theme.faint, linewidth=0.6)
    panel.set_axisbelow(True)
    for name, spine in panel.spines.items():
        spine.set_visible(name in {"left", "bottom"})
        spine.set_color(theme.faint)
