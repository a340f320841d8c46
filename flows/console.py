"""What a person sees in the terminal: tables, errors. Decides nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from epochal.data.traces import users_trace, whole_trace
from epochal.flows.terminal.fitting import EMPTY, Column, FittedTable, between_words, fitted
from epochal.flows.terminal.style import (
    BAD,
    DRAWING,
    GOOD,
    NOTE,
    QUIET,
    beside_what_moves,
    on_terminal,
)
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

    def print(self, *objects: Any, whole: bool = False, **options: Any) -> None:
        """As rich does it; above what moves at the terminal's end.

        On a terminal a text that is too wide is broken between words. whole: it is not, for it is
        there to be copied, or is none of ours.
        """
        if not whole and on_terminal(self):
            objects = tuple(self._folded(one) for one in objects)
        with beside_what_moves(self):
            super().print(*objects, **options)

    def _folded(self, given: Any) -> Any:
        if not isinstance(given, str | Text):
            return given
        text = Text(printable(given)) if isinstance(given, str) else given
        return between_words(text, self.width)

    def __enter__(self) -> Self:
        """What the block makes is written at its end, by one thread at a time."""
        DRAWING.acquire()
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes it."""
        try:
            super().__exit__(kind, error, trace)
        finally:
            DRAWING.release()

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


def wrapped(sign: str, style: str, text: str, console: Console) -> Text:
    """`sign text`; on a terminal in lines that end between two words.

    A word that is longer than a line stays whole, as an address or a path has to. Elsewhere the
    text is as it is: one line.
    """
    whole = line((sign, style), f" {text}")
    return between_words(whole, console.width - 1) if on_terminal(console) else whole


out = PlainConsole()
err = PlainConsole(stderr=True)

NOTHING = EMPTY
MAX_WIDTH = 400
REST_WIDTH, LEAST_REST = 40, 20
"""Of the causes in the table of goodput: so that a line fits into 80 columns, and the least."""


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
    """One line per epoch: loss, metrics, gradient norm, samples, seconds, cached.

    On a terminal those columns that it has room for; what is left out is said.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    # The validation loss last: people look for their metric first.
    names.sort(key=lambda name: name == "loss")
    columns = [
        Column("epoch", [str(row.epoch) for row in rows], right=True),
        Column("loss", [number(row.loss) for row in rows], right=True),
        *(
            Column(
                "validation\nloss" if name == "loss" else name.replace("_", "\n"),
                [number(row.metrics.get(name)) for row in rows],
                rank=1 if place else 0,
                right=True,
            )
            for place, name in enumerate(names)
        ),
        Column("gradient\nnorm", [number(row.gradient_norm, 3) for row in rows], 2, right=True),
        Column("samples", [_count(row.trained) for row in rows], 4, right=True),
        Column("kept\nnext", [_count(row.kept_next) for row in rows], 5, right=True),
        Column(
            "seconds",
            [
                NOTHING if row.seconds is None or row.cached else f"{row.seconds:.1f}"
                for row in rows
            ],
            3,
            right=True,
        ),
        Column(
            "cached",
            [{True: "yes", False: "no", None: NOTHING}[row.cached] for row in rows],
            3,
            right=True,
        ),
    ]
    return fitted_table(columns, title=title)


def _count(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def fitted_table(columns: Sequence[Column], *, title: str | None = None) -> Table:
    """A table; on a terminal of the columns that fit, and below it what was left out for that."""
    found = fitted(columns, out.width if on_terminal(out) else None)
    table = found.table(title=title)
    if found.left_out:
        names = ", ".join(column.title for column in found.left_out)
        table.caption = line((f"not shown here: {names}", QUIET))
        table.caption_justify = "left"
    return table


def goodput_table(goodput: RunGoodput) -> Table:
    """One line per epoch: seconds, share that moved the weights, samples a second, the rest."""
    lines = {**{str(epoch): one for epoch, one in goodput.epochs.items()}, "all": goodput.whole}
    room = max(LEAST_REST, out.width - 40) if on_terminal(out) else REST_WIDTH
    shares = [one.share for one in lines.values()]
    speeds = [one.samples_per_second for one in lines.values()]
    columns = [
        Column("epoch", list(lines), right=True),
        Column("seconds", [seconds(one.wall_seconds) for one in lines.values()], right=True),
        Column(
            "goodput", [NOTHING if one is None else f"{one:.0%}" for one in shares], 1, right=True
        ),
        Column(
            "samples/s", [NOTHING if one is None else f"{one:,.0f}" for one in speeds], 2,
            right=True, asked=True,
        ),
        Column("other seconds", [_rest(one, room) for one in lines.values()], 3, asked=True),
    ]  # fmt: skip
    return fitted_table(columns)


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


def _rest(totals: Totals, room: int) -> str:
    """The causes that took longest, as many as there is room for."""
    from epochal.tasks.goodput.run import other_causes

    text = ""
    for cause, spent in other_causes(totals):
        more = f"{text} · {cause} {seconds(spent)}" if text else f"{cause} {seconds(spent)}"
        if len(more) > room:
            break
        text = more
    return text


_STATES = {"done": GOOD, "would run": NOTE, "not needed": QUIET}


def plan_table(report: PlanReport) -> Table:
    """One line per stage: done, or why it would run; the same reasons are written once."""
    states, reasons = [], []
    told: dict[frozenset[str], str] = {}
    before: frozenset[str] = frozenset()
    for one in report.reports:
        state = "done" if one.done else "would run"
        states.append(state if one.needed else "not needed")
        reasons.append(_why(one.why, before, told) if one.needed else "")
        before = frozenset(one.why)
        told.setdefault(before, one.stage.label)
    keys = [(one.stage.key or NOTHING)[:8] for one in report.reports]
    columns = [
        Column("stage", [one.stage.label for one in report.reports]),
        Column("state", states, 1, styles=_STATES),
        Column("key", keys, 2, styles=dict.fromkeys(keys, QUIET)),
        Column("why", reasons, folds=True),
    ]
    return fitted_table(columns)


def _why(reasons: Sequence[str], before: frozenset[str], told: Mapping[frozenset[str], str]) -> str:
    """The reasons; by the stage above, or an earlier one, where that has them all or but a few."""
    own = frozenset(reasons)
    if own and own == before:
        return "as above"
    if own in told and own:
        return f"as {told[own]}"
    if before and before < own:
        return "; ".join(["as above", *(one for one in reasons if one not in before)])
    return "; ".join(reasons)


def print_whole(table: Table) -> None:
    """Prints every column in full: a terminal that is too narrow wraps the lines.

    One of `fitted_table` is laid out for the terminal: its long texts are broken there.
    """
    if on_terminal(out) and isinstance(table, FittedTable):
        out.print(table, soft_wrap=False)
        return
    width = Measurement.get(out, out.options.update(width=MAX_WIDTH), table).maximum
    PlainConsole(width=max(width, out.width)).print(table)


def text_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, folds: str | None = None
) -> Table:
    """A table of text, as `fitted_table` has it: columns of the right make room first.

    folds: the column whose texts may have several lines; it is never left out.
    """
    return fitted_table(
        [
            Column(
                heading,
                [row[place] for row in rows],
                0 if heading == folds or not place else 1,
                folds=heading == folds,
                asked=True,
            )
            for place, heading in enumerate(columns)
        ]
    )


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
    err.print(wrapped("note:", NOTE, text, err))


def say_link(title: str, url: str) -> None:
    """Where a run can be looked at, on standard error: `MLflow   http://…`, never cut."""
    err.print(f"{title:<9}{url}")


def say_error(text: str) -> None:
    """An error, on standard error."""
    err.print(wrapped("error:", BAD, text, err))


def say_trace(error: BaseException, *, all_frames: bool) -> None:
    """Where the error was raised, on standard error: in the user's own files, if it was there."""
    trace = whole_trace(error) if all_frames else users_trace(error)
    if trace is None:
        return
    err.print(trace.rstrip(), whole=True)
    if not all_frames:
        err.print(
            line(("the frames of your own files, and the last one; --debug shows all", QUIET))
        )


def print_json(body: Mapping[str, object] | Sequence[object]) -> None:
    """One object, or a list of them, on one line, the last on standard output.

    In an encoding without Unicode its characters are escaped: none may be lost there.
    """
    import json

    out.file.flush()
    is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(body, allow_nan=False, ensure_ascii=not is_unicode)
    sys.stdout.write(printable_json(text) + "\n")
    sys.stdout.flush()
