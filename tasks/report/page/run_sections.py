"""What a page says of whole runs: how they differ, what their time went into, their epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epochal.data.stage_store.records import is_sha256
from epochal.tasks.goodput.run import RunGoodput
from epochal.tasks.goodput.stopwatch import CAUSES
from epochal.tasks.report.page.charts.own_axes import draw_bars, draw_tree
from epochal.tasks.report.page.charts.spans import draw_stack
from epochal.tasks.report.page.facts import differing
from epochal.tasks.report.page.html import Section, Table
from epochal.tasks.report.page.lineage import lineage
from epochal.tasks.report.page.shown_run import Page, ReadRun
from epochal.tasks.report.tables import spread
from epochal.tasks.runs.summary import EpochRow

OPEN_ROWS = 20
"""Epochs up to which their table is shown without a click."""
MAX_TABLE_ROWS = 1000
MAX_COLUMNS = 240
"""Epochs whose seconds are drawn."""


def comparison(page: Page) -> Iterator[Section]:
    """How several runs differ, and what each of them is."""
    if page.single:
        return
    names = [run.name for run in page.runs]
    rows = differing([run.found for run in page.runs])
    note = "" if rows else "The configs, the code and the data of these runs are the same."
    table = Table(["", *names], rows, words=True) if rows else None
    yield Section("What differs", note, table=table, wide=True)
    told = [run.facts for run in page.runs]
    known = list(dict.fromkeys(name for facts in told for name in facts))
    rows = [[name, *(_shortened(facts.get(name, "–")) for facts in told)] for name in known]
    last = [_last_metrics(run.rows) for run in page.runs]
    rows += [
        [f"last {name}", *(_number(values.get(name)) for values in last)]
        for name in dict.fromkeys(name for values in last for name in values)
    ]
    yield Section("Runs", table=Table(["", *names], rows, words=True), wide=True)


def seconds(page: Page) -> Iterator[Section]:
    """Goodput: over the epochs of one run, or a bar for each of several."""
    title = "Goodput: seconds by cause"
    goodputs = [run.goodput for run in page.runs]
    known = [one for one in goodputs if one is not None]
    if not known:
        return
    if page.single:
        (goodput,) = known
        epochs = spread(list(goodput.epochs), most=MAX_COLUMNS)
        of_epochs = {
            cause.replace("_", " "): [
                goodput.epochs[epoch].seconds.get(cause, 0.0) for epoch in epochs
            ]
            for cause in CAUSES
        }
        parts = {name: values for name, values in of_epochs.items() if any(values)}
        chart = draw_stack(
            page.charts,
            title,
            parts,
            left=page.starts(page.runs[0], epochs),
            right=page.starts(page.runs[0], [epoch + 1 for epoch in epochs]),
        )
        yield Section(title, _goodput_note(goodput, drawn=len(epochs)), chart=chart)
        return
    wholes = {
        cause.replace("_", " "): [
            0.0 if one is None else one.whole.seconds.get(cause, 0.0) for one in goodputs
        ]
        for cause in CAUSES
    }
    parts = {name: values for name, values in wholes.items() if any(values)}
    notes = [
        f"{run.name}: {_goodput_note(one)}"
        for run, one in zip(page.runs, goodputs, strict=True)
        if one is not None
    ]
    yield Section(title, " ".join(notes), chart=draw_bars(page.charts, title, parts))


def lineage_tree(page: Page) -> Iterator[Section]:
    """The epochs that these runs and their other generations share."""
    found = lineage([run.found for run in page.runs])
    if found is None:
        return
    out = f" {found.left_out} further runs are left out." if found.left_out else ""
    note = (
        "A dot is an epoch's training, from left to right; a lane begins where a run leaves "
        "the one it shares epochs with. Filled: in the store, and reused by every run that "
        "needs it. Hollow: not done yet. Large: shared by several. Grey: other generations of "
        "these runs."
    )
    chart = draw_tree(page.charts, "Lineage", found.nodes, found.lanes)
    yield Section("Lineage", f"{note}{out}", chart=chart)
    heads = ["run", "epochs done", "shares epochs", "branched from", "what differs from that"]
    if len(found.rows) > 1:
        table = Table(heads, found.rows, words=True)
        yield Section("Runs of the lineage", table=table, wide=True)


def epochs(run: ReadRun) -> Iterator[Section]:
    """The run's epochs as a table."""
    if not run.rows:
        return
    shown = spread(run.rows, most=MAX_TABLE_ROWS)
    folded = f"{len(run.rows)} epochs" if len(run.rows) > OPEN_ROWS else ""
    note = f"{len(shown):,} of them." if len(shown) < len(run.rows) else ""
    yield Section("Epochs", note, table=_epoch_table(shown), wide=True, folded=folded)


def _goodput_note(goodput: RunGoodput, *, drawn: int | None = None) -> str:
    whole, unknown = goodput.whole, goodput.unknown
    speed, used = whole.samples_per_second, whole.flops_utilisation
    memory = [f"{peak / 1e6:,.0f} MB ({name})" for name, peak in whole.peaks.items()]
    notes = [
        f"{whole.share or 0:.0%} of {whole.wall_seconds:,.1f} s moved the weights",
        *([] if speed is None else [f"{speed:,.0f} samples a second while training"]),
        *([] if used is None else [f"{used:.1%} of the operations that the device can do"]),
        *([f"memory at most {', '.join(memory)}"] if memory else []),
        *([f"what {unknown} stages have cost is not known"] if unknown else []),
        *([f"{drawn} of {len(goodput.epochs)} epochs are drawn"] * (
            drawn is not None and drawn < len(goodput.epochs)
        )),
    ]  # fmt: skip
    return f"{'; '.join(notes)}."


def _shortened(text: str) -> str:
    """A digest as its first digits."""
    return f"{text[:16]}…" if is_sha256(text) else text


def _last_metrics(rows: Sequence[EpochRow]) -> dict[str, float | None]:
    if not rows:
        return {}
    named = {f"validation/{name}": value for name, value in rows[-1].metrics.items()}
    return {"train/loss": rows[-1].loss, **named}


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
