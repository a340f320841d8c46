"""What a person sees in the terminal: tables, errors. Decides nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from epochal.data.traces import users_trace, whole_trace
from epochal.tasks.printable import printable, printable_json

if TYPE_CHECKING:
    from epochal.tasks.goodput.run import RunGoodput
    from epochal.tasks.goodput.totals import Totals
    from epochal.tasks.runs.plan import PlanReport
    from epochal.tasks.runs.summary import EpochRow


class PlainConsole(Console):
    """A console to which every text is data: brackets are no markup, and nothing acts on it.

    What is to be coloured is a `Text`, made by `line`. It goes on when its reader is gone, as
    behind `| head`: so does the training.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every `str` that is printed, also in tables, comes through here."""
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        """Drops what is written from now on; rich itself would end the process."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


def line(*parts: str | tuple[str, str]) -> Text:
    """Texts one after the other; a pair is a text and its style."""
    return Text.assemble(
        *(
            printable(part) if isinstance(part, str) else (printable(part[0]), part[1])
            for part in parts
        )
    )


out = PlainConsole()
err = PlainConsole(stderr=True)

NOTHING = "–"
MAX_WIDTH = 400
REST_WIDTH = 40
"""Of the causes in the table of goodput, so that a line of it fits into 80 columns."""


def number(value: float | None, digits: int = 4) -> str:
    """A number as people read it; a dash for none."""
    return NOTHING if value is None else f"{value:.{digits}g}"


def size(count: int) -> str:
    """Bytes as people read them."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:  # noqa: PLR2004 - as drives and clouds count
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def epochs_table(rows: Sequence[EpochRow], *, title: str) -> Table:
    """One line per epoch: loss, metrics, gradient norm, samples, seconds, cached."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    # The validation loss last: people look for their metric first.
    names.sort(key=lambda name: name == "loss")
    headings = [
        "epoch",
        "loss",
        *("validation\nloss" if name == "loss" else name.replace("_", "\n") for name in names),
        *("gradient\nnorm", "samples", "kept\nnext", "seconds", "cached"),
    ]
    for heading in headings:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.epoch),
            number(row.loss),
            *(number(row.metrics.get(name)) for name in names),
            number(row.gradient_norm, 3),
            NOTHING if row.trained is None else str(row.trained),
            NOTHING if row.kept_next is None else str(row.kept_next),
            NOTHING if row.seconds is None or row.cached else f"{row.seconds:.1f}",
            {True: "yes", False: "no", None: NOTHING}[row.cached],
        )
    return table


def goodput_table(goodput: RunGoodput) -> Table:
    """One line per epoch: seconds, share that moved the weights, samples a second, the rest."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for heading in ("epoch", "seconds", "goodput", "samples/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("other seconds", no_wrap=True)
    lines = {**{str(epoch): one for epoch, one in goodput.epochs.items()}, "all": goodput.whole}
    for name, totals in lines.items():
        share, speed = totals.share, totals.samples_per_second
        table.add_row(
            name,
            seconds(totals.wall_seconds),
            NOTHING if share is None else f"{share:.0%}",
            NOTHING if speed is None else f"{speed:,.0f}",
            _rest(totals),
        )
    return table


def goodput_lines(goodput: RunGoodput) -> list[str]:
    """What else is known of all epochs together: peaks of memory, utilisation, what is missing."""
    whole = goodput.whole
    memory = " · ".join(f"{name} {size(peak)}" for name, peak in whole.peaks.items())
    used = whole.flops_utilisation
    unknown = f"{whole.unknown_losses} of {whole.resumed} times it is not known what was lost"
    return [
        *([f"memory   {memory}"] if memory else []),
        *([] if used is None else [f"device   {used:.1%} of the operations that it can do"]),
        *([f"lost     {unknown}"] if whole.unknown_losses else []),
        *([f"unknown  what {goodput.unknown} stages have cost"] if goodput.unknown else []),
    ]


def seconds(value: float) -> str:
    """Seconds as people read them."""
    return f"{value:,.{2 if value < 10 else 1 if value < 1000 else 0}f}"  # noqa: PLR2004 - digits


def _rest(totals: Totals) -> str:
    """The causes that took longest, as many as there is room for."""
    from epochal.tasks.goodput.run import other_causes

    text = ""
    for cause, spent in other_causes(totals):
        more = f"{text} · {cause} {seconds(spent)}" if text else f"{cause} {seconds(spent)}"
        if len(more) > REST_WIDTH:
            break
        text = more
    return text


def plan_table(report: PlanReport) -> Table:
    """One line per stage: done, or why it would run."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("state")
    table.add_column("key", style="dim")
    table.add_column("why", overflow="fold")
    before: tuple[str, ...] = ()
    for stage_report in report.reports:
        why = (
            "as above"
            if stage_report.why and stage_report.why == before
            else "; ".join(stage_report.why)
        )
        before = stage_report.why
        state = line(("done", "green") if stage_report.done else ("would run", "yellow"))
        if not stage_report.needed:
            state, why = line(("not needed", "dim")), ""
        table.add_row(stage_report.stage.label, state, (stage_report.stage.key or NOTHING)[:8], why)
    return table


def print_whole(table: Table) -> None:
    """Prints every column in full: a terminal that is too narrow wraps the lines."""
    width = Measurement.get(out, out.options.update(width=MAX_WIDTH), table).maximum
    PlainConsole(width=max(width, out.width)).print(table)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of text."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def say_note(text: str) -> None:
    """What a person should know though nothing is wrong, on standard error."""
    err.print(line(("note:", "yellow"), f" {text}"))


def say_error(text: str) -> None:
    """An error, on standard error."""
    err.print(line(("error:", "bold red"), f" {text}"))


def say_trace(error: BaseException, *, all_frames: bool) -> None:
    """Where the error was raised, on standard error: in the user's own files, if it was there."""
    trace = whole_trace(error) if all_frames else users_trace(error)
    if trace is None:
        return
    err.print(trace.rstrip())
    if not all_frames:
        err.print(
            line(("the frames of your own files, and the last one; --debug shows all", "dim"))
        )


def print_json(body: Mapping[str, object]) -> None:
    """One object on one line, the last on standard output.

    In an encoding without Unicode its characters are escaped: none may be lost there.
    """
    import json

    out.file.flush()
    is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(body, allow_nan=False, ensure_ascii=not is_unicode)
    sys.stdout.write(printable_json(text) + "\n")
    sys.stdout.flush()
