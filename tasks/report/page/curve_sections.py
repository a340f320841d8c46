"""The curves of a page: loss, metrics, learning rate, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from epochal.data.errors import EpochalError
from epochal.engine.config.mid_epoch import INSIDE
from epochal.engine.config.numerics import EMA
from epochal.tasks.report.page.charts.curve import Curve
from epochal.tasks.report.page.charts.lines import Line, draw_lines
from epochal.tasks.report.page.charts.spans import draw_heat
from epochal.tasks.report.page.curves import GROUP, MAX_POINTS, update_curves
from epochal.tasks.report.page.html import Section
from epochal.tasks.report.page.shown_run import Page, ReadRun

if TYPE_CHECKING:
    import numpy.typing as npt

# R rows of a heat map, K columns of it

LOSS, RATE, NORM, CLIPPED, CLIP = (
    "train/loss", "train/learning_rate", "gradients/norm", "gradients/norm_clipped",
    "gradients.clip_norm",
)  # fmt: skip
UPDATES_OF_LOSS, EPOCHS_OF_LOSS = "train/loss of updates", "train/loss of epochs"
MAX_HEAT_ROWS = 100


def read_updates(page: Page) -> Iterator[Section]:
    """Reads the curves of updates, which the sections below are of. Yields what cannot be read."""
    most = max(200, MAX_POINTS // len(page.runs))
    for run in page.runs:
        try:
            run.updates = update_curves(run.tables, run.open, most=most)
        except EpochalError as error:
            title = page.titled("Curves of updates", run)
            yield Section(title, problem=str(error))


def _lines(
    page: Page, title: str, found: Sequence[Mapping[str, Curve]], *, note: str = "", **how: Any
) -> Iterator[Section]:
    """A section with the curves that each of the runs has, by name."""
    names = list(dict.fromkeys(name for curves in found for name in curves))
    lines = [
        Line(
            curve,
            page.places(run, curve.x),
            number,
            names.index(name),
            noisy=not how.get("linear") and curve in run.updates.values(),
        )
        for number, (run, curves) in enumerate(zip(page.runs, found, strict=True))
        for name, curve in curves.items()
    ]
    chart = draw_lines(page.charts, title, lines, names=names, **how)
    if chart is None:
        return
    if any(line.curve.has_band for line in lines):
        each = max(max(line.curve.count, default=1) for line in lines)
        thin = (
            f"A point stands for up to {each:,} neighbouring values: the line is their mean, "
            "the band reaches from the lowest to the highest."
        )
        note = f"{note} {thin}".strip()
    yield Section(title, note, chart=chart)


def _of_updates(page: Page, choose: Callable[[str], bool]) -> list[dict[str, Curve]]:
    return [
        {name: curve for name, curve in run.updates.items() if choose(name)} for run in page.runs
    ]


def losses(page: Page) -> Iterator[Section]:
    """Of updates and of epochs, of training and of validation."""
    found = []
    for run in page.runs:
        own = {UPDATES_OF_LOSS: run.updates[LOSS]} if LOSS in run.updates else {}
        of_epochs = {
            EPOCHS_OF_LOSS if name == LOSS else name: curve
            for name, curve in run.epochs.items()
            if _metric(name) in {"loss", f"{EMA}loss"}
        }
        found.append(own | of_epochs)
    yield from _lines(page, "Loss", found)


def metrics(page: Page) -> Iterator[Section]:
    """Shares in one chart, each other metric in its own; those inside epochs."""
    curves = [
        {
            name: curve
            for name, curve in run.epochs.items()
            if _metric(name) not in {"loss", f"{EMA}loss"}
        }
        for run in page.runs
    ]
    names = list(dict.fromkeys(name for one in curves for name in one))

    def is_share(name: str) -> bool:
        own = [one[name] for one in curves if name in one]
        return all(min(curve.low) >= 0 and max(curve.high) <= 1 for curve in own)

    shares = [name for name in names if is_share(name)]
    together = [shares] if shares else []
    for group in [*together, *([name] for name in names if name not in shares)]:
        title = group[0] if len(group) == 1 else "Validation metrics"
        chosen = [{name: one[name] for name in group if name in one} for one in curves]
        yield from _lines(page, title, chosen, linear=True)
    inside = _of_updates(page, lambda name: name.startswith(INSIDE))
    yield from _lines(page, "Validation inside epochs", inside)


def rates(page: Page) -> Iterator[Section]:
    """The learning rate, of each group of parameters that has one of its own."""
    found = _of_updates(page, lambda name: name == RATE or name.startswith(f"{RATE}/"))
    yield from _lines(page, "Learning rate", found, linear=True)


def gradients(page: Page) -> Iterator[Section]:
    """Norms before and after the clip, with its limit, and by group of parameters."""
    found = _of_updates(page, lambda name: name in {NORM, CLIPPED})
    for run, curves in zip(page.runs, found, strict=True):
        clip = run.found.config.gradients.clip_norm
        if clip is not None and NORM in curves:
            x = curves[NORM].x
            line = Curve(CLIP, marked=False)
            for end in dict.fromkeys((x[0], x[-1])):
                line.add(end, clip)
            curves[CLIP] = line
    note = "Before the clip, and after it." if any(CLIPPED in one for one in found) else ""
    yield from _lines(page, "Gradient norm", found, note=note)
    for run in page.runs:
        groups = {
            name.removeprefix(GROUP): curve
            for name, curve in run.updates.items()
            if name.startswith(GROUP)
        }
        yield from _heat_of_groups(page, run, groups)


def _heat_of_groups(page: Page, run: ReadRun, groups: Mapping[str, Curve]) -> Iterator[Section]:
    if not groups:
        return
    names = list(groups)[:MAX_HEAT_ROWS]
    x_K = np.array(max((groups[name].x for name in names), key=len))
    half_K = (x_K[1:] + x_K[:-1]) / 2
    values_RK = np.stack([_at(groups[name], x_K) for name in names])
    first, last = run.progress.update_K[0], run.progress.update_K[-1]
    title = page.titled("Gradient norm by group", run)
    chart = draw_heat(
        page.charts,
        title,
        names,
        values_RK,
        left=page.places(run, [first, *half_K]),
        right=page.places(run, [*half_K, last]),
    )
    out = len(groups) - len(names)
    more = f" {out} further groups are in the tables of updates." if out else ""
    yield Section(title, f"Before the clip; means of neighbouring updates.{more}", chart=chart)


def parts(page: Page) -> Iterator[Section]:
    """What a loss of several parts consists of."""
    found = _of_updates(page, lambda name: name.startswith(f"{LOSS}/"))
    yield from _lines(page, "Parts of the loss", found)


def _at(curve: Curve, x_K: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The curve's means at these places: of one with gaps, NaN where it has no point."""
    if len(curve.x) == len(x_K):
        return np.asarray(curve.mean)
    values_K = np.full(len(x_K), np.nan)
    values_K[np.searchsorted(x_K, curve.x).clip(max=len(x_K) - 1)] = curve.mean
    return values_K


def _metric(name: str) -> str:
    return name.partition("/")[2]
