"""A run as one HTML page: what it is, its curves, its samples. Reads the store and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from epochal.data.errors import EpochalError
from epochal.engine.config.mid_epoch import INSIDE
from epochal.engine.config.numerics import EMA
from epochal.tasks.report.curves import epoch_curves, update_curves
from epochal.tasks.report.html_text import Html, element, joined, png_address
from epochal.tasks.report.report_page import page
from epochal.tasks.report.svg_chart import line_chart
from epochal.tasks.report.tables import MAX_PICTURE_ROWS, RunTables
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
SHEET_SAMPLES, SHEET_COLUMNS = 24, 6
MAX_GROUPS = 8
OPEN_ROWS = 20
"""Epochs up to which their table is shown without a click."""

Images = Callable[[Sequence[int]], "list[npt.NDArray[np.float32]]"]


@dataclass(frozen=True)
class Section:
    """A part of the page. wide: takes the whole width."""

    title: str
    body: Html
    note: str = ""
    wide: bool = False


def report_html(
    found: FoundRun,
    *,
    images: Images | str,
    tables: RunTables | None = None,
    light: Mapping[str, bytes] | None = None,
) -> str:
    """The page, from the same stages the same text.

    images: reads the images of samples by id, or says why there are none. tables: of this run, if
    they are open already. light: `data_map` and `kept` as PNG, as far as they are drawn. What
    cannot be read of the store is said in its place on the page.
    """
    report = _Report(found, images, tables or RunTables.of_run(found), light or {})
    return page(
        title=found.plan.reference,
        header=report.header(),
        sections=[
            element(
                "section",
                element("h2", one.title),
                one.body,
                *([element("p", one.note, class_="note")] if one.note else []),
                **({"class_": "wide"} if one.wide else {}),
            )
            for one in report.sections()
        ],
    )


class _Report:
    def __init__(
        self,
        found: FoundRun,
        images: Images | str,
        tables: RunTables,
        light: Mapping[str, bytes],
    ) -> None:
        self._found = found
        self._images = images
        self._tables = tables
        self._light = light

    @cached_property
    def _rows(self) -> list[EpochRow]:
        return epoch_rows(self._found)

    def header(self) -> Html:
        """What the run is, and its config behind a click."""
        found, plan = self._found, self._found.plan
        best = found.best
        stopped = "" if found.stopped_after is None else ", stopped early"
        weights = found.weights_sha256
        run_inputs: dict[str, str | None] = {
            "generation": str(plan.generation),
            "epochs": f"{len(self._rows)} of {found.config.epochs}{stopped}",
            "best": None
            if best is None
            else f"{best.metric} {best.value:.4g} in epoch {best.epoch}",
            "average": average_text(found),
            "branched from": None
            if plan.branched_from is None
            else f"{plan.branched_from}, sharing {plan.shared_epochs} epochs",
            "samples": f"{max(row.trained or 0 for row in self._rows):,}" if self._rows else None,
            "policy": found.config.sampling.policy,
            "seed": str(found.config.seed),
            "weights sha256": weights or "the last epoch is not trained yet",
        }
        listed = [
            element("div", element("dt", name), element("dd", value))
            for name, value in run_inputs.items()
            if value is not None
        ]
        config = element(
            "details", element("summary", "config"), element("pre", _yaml(plan.config))
        )
        return joined(element("h1", plan.run), element("dl", *listed), config)

    def sections(self) -> Iterator[Section]:
        """All parts that the run has something for, in the page's order."""
        yield from self._epochs()
        yield from self._told("Curves of updates", self._update_charts)
        yield from self._told("Kept samples", self._kept)
        yield from self._told("Data map", self._data_map)
        for order, title in (("hardest", "Hardest samples"), ("suspects", "Perhaps mislabelled")):
            yield from self._told(title, self._samples, order, title)

    def _told(
        self, title: str, make: Callable[..., Iterator[Section]], *args: str
    ) -> list[Section]:
        try:
            return list(make(*args))
        except EpochalError as error:
            return [Section(title, element("p", str(error), class_="problem"))]

    def _epochs(self) -> Iterator[Section]:
        curves = epoch_curves(self._rows)
        losses = [one for name, one in curves.items() if _metric(name) in {"loss", f"{EMA}loss"}]
        if losses:
            yield Section("Loss by epoch", line_chart(losses, x_label="epoch"))
        others = [one for one in curves.values() if one not in losses]
        shares = [one for one in others if min(one.low) >= 0 and max(one.high) <= 1]
        if shares:
            title = shares[0].name if len(shares) == 1 else "Validation metrics"
            yield Section(title, line_chart(shares, x_label="epoch"))
        for one in others:
            if one not in shares:
                yield Section(one.name, line_chart([one], x_label="epoch"))
        if self._rows:
            table = _epoch_table(self._rows)
            if len(self._rows) > OPEN_ROWS:
                summary = element("summary", f"{len(self._rows)} epochs")
                table = element("details", summary, table)
            yield Section("Epochs", table, wide=True)

    def _update_charts(self) -> Iterator[Section]:
        curves = update_curves(self._tables)

        def chart(
            title: str, names: Sequence[str], note: str = "", *, linear: bool = False
        ) -> Iterator[Section]:
            chosen = [curves[name] for name in names if name in curves]
            if any(curve.x for curve in chosen):
                yield Section(title, line_chart(chosen, x_label="update", linear=linear), note)

        def below(prefix: str) -> list[str]:
            return [name for name in curves if name.startswith(prefix)]

        thinned = ""
        if LOSS in curves and curves[LOSS].has_band:
            thinned = "The line is a mean over neighbouring updates, the band all their values."
        yield from chart("Training loss by update", [LOSS], thinned)
        yield from chart("Parts of the loss", below(f"{LOSS}/"))
        yield from chart("Validation inside epochs", below(INSIDE))
        yield from chart("Learning rate", [RATE, *below(f"{RATE}/")], linear=True)
        both = [NORM, CLIPPED]
        clip = "Before the clip, and after it." if CLIPPED in curves else ""
        yield from chart("Gradient norm", both, clip)
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
        if kept is not None:
            name = "Kept samples"
            drawn = self._light.get("kept")
            yield Section(name, _in_both(lambda theme: kept_png(kept, theme=theme), name, drawn))

    def _data_map(self) -> Iterator[Section]:
        from epochal.data.samples.scores import data_map
        from epochal.tasks.report.figures import data_map_png

        if not self._tables.trained:
            return
        rows = self._tables.picture_rows
        if rows > MAX_PICTURE_ROWS:
            text = f"Not drawn: it would read {rows:,} rows, more than {MAX_PICTURE_ROWS:,}."
            yield Section("Data map", element("p", text, class_="note"))
            return
        scores = self._tables.scores
        found = None if scores is None else data_map(scores)
        if found is None:
            text = "Not drawn: no sample has been seen in two epochs with a probability of classes."
            yield Section("Data map", element("p", text, class_="note"))
            return
        yield Section(
            "Data map",
            _in_both(
                lambda theme: data_map_png(found, theme=theme),
                "Data map",
                self._light.get("data_map"),
            ),
            "Mean and standard deviation of the label's probability over the epochs "
            "(Swayamdipta et al. 2020).",
        )

    def _samples(self, order: str, title: str) -> Iterator[Section]:
        from epochal.tasks.report.samples import view_samples

        if not self._tables.trained:
            return
        view = view_samples(self._found, order=order, count=SHEET_SAMPLES, tables=self._tables)
        note = "; ".join([view.caption, *view.notes])
        why = self._images
        if not isinstance(why, str):
            try:
                images = why([sample["sample_id"] for sample in view.samples])
                yield Section(title, _sheet(images, view), note)
            except EpochalError as error:
                why = str(error)
            else:
                return
        assert isinstance(why, str)
        yield Section(title, _sample_table(view), f"{note}. No pictures: {why}", wide=True)


def _sheet(images: list[npt.NDArray[np.float32]], view: SampleView) -> Html:
    from epochal.tasks.report.contact_sheet import captions, sheet_png

    texts = captions(view)
    return _in_both(
        lambda theme: sheet_png(images, texts, columns=SHEET_COLUMNS, theme=theme),
        f"{view.order} samples",
    )


def _in_both(draw: Callable[[Theme], bytes], name: str, light: bytes | None = None) -> Html:
    """The picture in the page's light and its dark colours. light: that one, if it is drawn."""
    from epochal.tasks.report.figures import DARK, LIGHT

    dark = png_address(draw(DARK))
    source = element("source", srcset=dark, media="(prefers-color-scheme: dark)")
    return element(
        "picture", source, element("img", src=png_address(light or draw(LIGHT)), alt=name)
    )


def _metric(name: str) -> str:
    return name.partition("/")[2]


def _epoch_table(rows: Sequence[EpochRow]) -> Html:
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
    return _table(heads, cells)


def _sample_table(view: SampleView) -> Html:
    return _table(view.columns, view.rows())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = element("tr", *(element("th", one) for one in heads))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    table = element("table", element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _yaml(config: Mapping[str, Any]) -> str:
    """The config as text; a password in an address is left out."""
    import yaml

    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    return re.sub(r"(\w://[^\s:/@]*):[^\s/@]+@", r"\1:…@", text)
