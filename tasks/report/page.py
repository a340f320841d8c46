"""A run as one HTML page: what it is, its curves, its samples. Reads the store and nothing else.

This file says what is on the page; templates/ has its HTML, its SVG and its CSS.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from epochal.data.errors import EpochalError
from epochal.data.secrets import masked
from epochal.data.types import from_json
from epochal.engine.config.mid_epoch import INSIDE
from epochal.engine.config.numerics import EMA
from epochal.tasks.goodput.run import run_goodput
from epochal.tasks.printable import printable
from epochal.tasks.report.curves import cause_curves, epoch_curves, update_curves
from epochal.tasks.report.samples import SHEET_SAMPLES, SHEETS, view_samples
from epochal.tasks.report.svg_chart import Chart, line_chart
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, RunTables
from epochal.tasks.run_data.sample_names import SampleNames, stored_names
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.summary import EpochRow, epoch_rows
from epochal.tasks.stages.average import average_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.tasks.report.figures import Theme
    from epochal.tasks.report.samples import SampleView

LOSS, RATE, NORM, CLIPPED = (
    "train/loss", "train/learning_rate", "gradients/norm", "gradients/norm_clipped"
)  # fmt: skip
SHEET_COLUMNS = 6
MAX_GROUPS = 8
OPEN_ROWS = 20
"""Epochs up to which their table is shown without a click."""

Images = Callable[[Sequence[int]], "list[npt.NDArray[np.float32]]"]

logger = logging.getLogger(__name__)

_TEMPLATES = Environment(
    loader=PackageLoader("epochal.tasks.report"),
    autoescape=True,
    finalize=lambda value: printable(value) if isinstance(value, str) else value,
    undefined=StrictUndefined,
    trim_blocks=True,
)


@dataclass(frozen=True)
class Picture:
    """A picture for the page in light and in dark colours, each as PNG in base64."""

    light: str
    dark: str


@dataclass(frozen=True)
class Table:
    """Rows of text under their heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A part of the page: a chart, a picture or a table, with a note below; or only a note.

    summary: shown instead of the table until it is clicked. problem: why nothing can be shown.
    """

    title: str
    note: str = ""
    chart: Chart | None = None
    picture: Picture | None = None
    table: Table | None = None
    summary: str = ""
    problem: str = ""


def report_html(
    run: FoundRun,
    *,
    images: Images | str,
    tables: RunTables | None = None,
    light: Mapping[str, bytes] | None = None,
    names: SampleNames | None = None,
) -> str:
    """The page; the same stages always give the same text.

    images: reads the images of samples by id, or a text that says why there are none. tables: of
    this run, if they are open already. light: `data_map` and `kept` as PNG for light colours, as
    far as they are drawn already. names: of samples, classes and files; None:
    what the store knows. What cannot be read is reported in its place on the page.
    """
    names = names or stored_names(run, notice=logger.warning)
    report = _Report(run, images, tables or RunTables.of_run(run), light or {}, names)
    return render(
        "page.html",
        title=run.plan.reference,
        heading=run.plan.run,
        generation=run.plan.generation,
        facts=report.facts(),
        config=_yaml(run.plan.config),
        sections=list(report.sections()),
    )


def render(template: str, **values: object) -> str:
    """A file of templates/ with these values, each escaped."""
    return _TEMPLATES.get_template(template).render(values)


class _Report:
    def __init__(
        self,
        run: FoundRun,
        images: Images | str,
        tables: RunTables,
        light: Mapping[str, bytes],
        names: SampleNames,
    ) -> None:
        self._run = run
        self._images = images
        self._tables = tables
        self._light = light
        self._names = names

    @cached_property
    def _rows(self) -> list[EpochRow]:
        return epoch_rows(self._run)

    def facts(self) -> list[tuple[str, str]]:
        """What the run is: names and values."""
        run, plan = self._run, self._run.plan
        best = run.best
        stopped = "" if run.stopped_after is None else ", stopped early"
        weights = run.weights_sha256
        facts: dict[str, str | None] = {
            "generation": str(plan.generation),
            "epochs": f"{len(self._rows)} of {run.config.epochs}{stopped}",
            "best": None
            if best is None
            else f"{best.metric} {best.value:.4g} in epoch {best.epoch}",
            "average": average_text(run),
            "branched from": None
            if plan.branched_from is None
            else f"{plan.branched_from}, sharing {plan.shared_epochs} epochs",
            "samples": f"{max(row.trained or 0 for row in self._rows):,}" if self._rows else None,
            "policy": run.config.sampling.policy,
            "seed": str(run.config.seed),
            "weights sha256": weights or "the last epoch is not trained yet",
        }
        return [(name, value) for name, value in facts.items() if value is not None]

    def sections(self) -> Iterator[Section]:
        """All parts that the run has something for, in the page's order."""
        yield from self._epochs()
        yield from self._or_problem("Curves of updates", self._update_charts)
        yield from self._or_problem("Kept samples", self._kept)
        yield from self._or_problem("Data map", self._data_map)
        for order, title in SHEETS.items():
            yield from self._or_problem(title, self._samples, order, title)
        yield from self._or_problem("Goodput", self._goodput)

    def _or_problem(
        self, title: str, make: Callable[..., Iterator[Section]], *args: str
    ) -> list[Section]:
        try:
            return list(make(*args))
        except EpochalError as error:
            return [Section(title, problem=str(error))]

    def _epochs(self) -> Iterator[Section]:
        curves = epoch_curves(self._rows)
        losses = [
            curve for name, curve in curves.items() if _metric(name) in {"loss", f"{EMA}loss"}
        ]
        if losses:
            yield Section("Loss by epoch", chart=line_chart(losses, x_label="epoch"))
        others = [curve for curve in curves.values() if curve not in losses]
        shares = [curve for curve in others if min(curve.low) >= 0 and max(curve.high) <= 1]
        if shares:
            title = shares[0].name if len(shares) == 1 else "Validation metrics"
            yield Section(title, chart=line_chart(shares, x_label="epoch"))
        for curve in others:
            if curve not in shares:
                yield Section(curve.name, chart=line_chart([curve], x_label="epoch"))
        if self._rows:
            many = len(self._rows) > OPEN_ROWS
            summary = f"{len(self._rows)} epochs" if many else ""
            yield Section("Epochs", table=_epoch_table(self._rows), summary=summary)

    def _update_charts(self) -> Iterator[Section]:
        curves = update_curves(self._tables)

        def chart(
            title: str, names: Sequence[str], note: str = "", *, linear: bool = False
        ) -> Iterator[Section]:
            chosen = [curves[name] for name in names if name in curves]
            drawn = line_chart(chosen, x_label="update", linear=linear)
            if drawn is not None:
                yield Section(title, note, chart=drawn)

        def below(prefix: str) -> list[str]:
            return [name for name in curves if name.startswith(prefix)]

        mean = ""
        if LOSS in curves and curves[LOSS].has_band:
            mean = "The line is a mean over neighbouring updates, the band all their values."
        yield from chart("Training loss by update", [LOSS], mean)
        yield from chart("Parts of the loss", below(f"{LOSS}/"))
        yield from chart("Validation inside epochs", below(INSIDE))
        yield from chart("Learning rate", [RATE, *below(f"{RATE}/")], linear=True)
        clip = "Before the clip, and after it." if CLIPPED in curves else ""
        yield from chart("Gradient norm", [NORM, CLIPPED], clip)
        groups = below(f"{NORM}/")
        more = f"{len(groups) - MAX_GROUPS} further groups are in the tables of updates."
        yield from chart(
            "Gradient norm by group",
            groups[:MAX_GROUPS],
            more if len(groups) > MAX_GROUPS else "Before the clip.",
        )

    def _kept(self) -> Iterator[Section]:
        from epochal.tasks.report.figures import kept_png

        kept = self._tables.kept()
        if kept is None:
            return
        picture = _in_both(lambda theme: kept_png(kept, theme=theme), self._light.get("kept"))
        note = (
            "The share for an epoch is planned when the epoch before it has ended; the last one "
            f"is for epoch {kept.epochs_E[-1]}."
        )
        yield Section("Kept samples", note, picture=picture)

    def _data_map(self) -> Iterator[Section]:
        from epochal.data.samples.scores import data_map
        from epochal.tasks.report.figures import data_map_png

        title = "Data map"
        if not self._tables.trained:
            return
        rows = self._tables.picture_rows
        if rows > MAX_PICTURE_ROWS:
            limit = f"more than {MAX_PICTURE_ROWS:,}"
            yield Section(title, f"Not drawn: it would read {rows:,} rows, {limit}.")
            return
        scores = self._tables.scores
        places = None if scores is None else data_map(scores)
        if places is None:
            why = "no sample has been seen in two epochs with a probability of classes"
            yield Section(title, f"Not drawn: {why}.")
            return
        yield Section(
            title,
            "Mean and standard deviation of the label's probability over the epochs "
            "(Swayamdipta et al. 2020).",
            picture=_in_both(
                lambda theme: data_map_png(places, theme=theme), self._light.get("data_map")
            ),
        )

    def _goodput(self) -> Iterator[Section]:
        goodput = run_goodput(self._run, self._run.stage_store)
        if goodput is None:
            return
        whole, unknown = goodput.whole, goodput.unknown
        speed, used = whole.samples_per_second, whole.flops_utilisation
        memory = [f"{peak / 1e6:,.0f} MB ({name})" for name, peak in whole.peaks.items()]
        notes = [
            f"{whole.share or 0:.0%} of {whole.wall_seconds:,.1f} s moved the weights",
            *([] if speed is None else [f"{speed:,.0f} samples a second while training"]),
            *([] if used is None else [f"{used:.1%} of the operations that the device can do"]),
            *([f"memory at most {', '.join(memory)}"] if memory else []),
            *([f"what {unknown} stages have cost is not known"] if unknown else []),
        ]
        chart = line_chart(cause_curves(goodput), x_label="epoch", linear=True)
        yield Section("Goodput: seconds by cause", f"{'; '.join(notes)}.", chart=chart)

    def _samples(self, order: str, title: str) -> Iterator[Section]:
        if not self._tables.trained:
            return
        view = view_samples(
            self._run, order=order, count=SHEET_SAMPLES, tables=self._tables, names=self._names
        )
        note = "; ".join([view.caption, *view.notes])
        why = self._images
        if not isinstance(why, str):
            try:
                images = why([sample["sample_id"] for sample in view.samples])
                yield Section(title, note, picture=_sheet(images, view))
            except EpochalError as error:
                why = str(error)
            else:
                return
        assert isinstance(why, str)
        table = Table(view.columns, view.rows())
        yield Section(title, f"{note}. No pictures: {why}", table=table)


def _sheet(images: list[npt.NDArray[np.float32]], view: SampleView) -> Picture:
    from epochal.tasks.report.contact_sheet import captions, sheet_png

    texts = captions(view)
    return _in_both(lambda theme: sheet_png(images, texts, columns=SHEET_COLUMNS, theme=theme))


def _in_both(draw: Callable[[Theme], bytes], light: bytes | None = None) -> Picture:
    """The picture in light and in dark colours. light: the light one, if it is drawn already."""
    from epochal.tasks.report.figures import DARK, LIGHT

    light, dark = light or draw(LIGHT), draw(DARK)
    return Picture(*(base64.b64encode(png).decode() for png in (light, dark)))


def _metric(name: str) -> str:
    return name.partition("/")[2]


def _epoch_table(rows: Sequence[EpochRow]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    heads = ["epoch", "loss", *(f"validation {name}" for name in names)]
    heads += ["gradient norm", "trained on", "kept next"]
    cells = [
        [
            str(row.epoch),
            _number(row.loss),
            *(_number(row.metrics.get(name)) for name in names),
            _number(row.gradient_norm),
            _count(row.trained),
            _count(row.kept_next),
        ]
        for row in rows
    ]
    return Table(heads, cells)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _yaml(config: Mapping[str, Any]) -> str:
    """The config as text; a password in an address is left out."""
    text = yaml.safe_dump(from_json(config), sort_keys=False, allow_unicode=True, width=100)
    return masked(text)
