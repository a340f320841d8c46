"""`epochal compare`: runs side by side."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epochal.flows import console
from epochal.flows.commands.options import AsJson, Debug, StoreOption
from epochal.flows.terminal.fitting import Column
from epochal.tasks.out_file import check_out
from epochal.tasks.runs.explain import shown
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.why.updates import GROUP

if TYPE_CHECKING:
    from epochal.tasks.compare.compare import Comparison

RunNames = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="Two runs or more, each a config's path, NAME, NAME@GENERATION or STORE/NAME.",
    ),
]
BLOCKS = "▁▂▃▄▅▆▇█"
MAX_DRAWN = 48  # characters of a curve
LEAST_WIDTH = 60  # of a terminal in which curves are drawn
SHOWN_PARTINGS = 3  # updates at which something differs for the first time
SIDE_BY_SIDE = 4
"""Runs up to which each has a column; more have a row each."""


def compare(
    runs: RunNames,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Write the report of all of them there too."),
    ] = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
    _debug: Debug = False,  # noqa: FBT002 - likewise
) -> None:
    """Show what differs between runs: config, code, metrics, and where their losses part."""
    from epochal.tasks.compare.compare import compare_runs

    if out is not None:
        check_out(out, option="--out", ends=(".html", ".htm"))
    found = [find_run(name, store=store, notice=console.say_note) for name in runs]
    comparison = compare_runs(found)
    if out is not None:
        from epochal.tasks.report.page.shown_run import ShownRun
        from epochal.tasks.report.page.write import write_page

        size = write_page([ShownRun(run) for run in found], out)
    if as_json:
        console.print_json(comparison.as_object())
        return
    _print(comparison)
    if out is not None:
        console.out.print(f"\n{out}  {console.size(size)}")


def _print(comparison: Comparison) -> None:
    say, names = console.out.print, comparison.names
    if comparison.differs:
        rows = {path: list(map(shown, one)) for path, one in comparison.differs.items()}
        _print_table("config", names, rows)
    else:
        say("config: no field differs")
    for name, changes in zip(names[1:], comparison.code, strict=True):
        for text in changes:
            say(f"{name}: {text}")
    say()
    _print_table("metric", names, _metric_rows(comparison))
    say()
    say(_shared_text(comparison))
    for line in _parting_lines(comparison):
        say(line)
    _draw_curves(comparison)


def _print_table(title: str, names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """A column for each run; of many runs a row for each."""
    if len(names) <= SIDE_BY_SIDE:
        table = console.fitted_table(
            [
                Column(title, list(rows)),
                *(
                    Column(name, [values[place] for values in rows.values()], folds=True)
                    for place, name in enumerate(names)
                ),
            ]
        )
    else:
        lines = [
            [name, *(values[place] for values in rows.values())] for place, name in enumerate(names)
        ]
        table = console.text_table(["run", *rows], lines)
    console.print_whole(table)


def _metric_rows(comparison: Comparison) -> dict[str, list[str]]:
    done = [str(len(curve)) for curve in comparison.curves.get("train/loss", ())]
    rows = {"epochs done": done or ["0"] * len(comparison.names)}
    return rows | {
        name: [console.number(value) for value in values]
        for name, values in comparison.metrics.items()
    }


def _shared_text(comparison: Comparison) -> str:
    count = comparison.shared_epochs
    if len(set(comparison.shared[1:])) > 1:
        each = ", ".join(
            f"{name} {one}"
            for name, one in zip(comparison.names[1:], comparison.shared[1:], strict=True)
        )
        return f"epochs shared with {comparison.names[0]}: {each}; by all: {count}"
    if not count:
        return "no epoch is shared: the first ones differ already"
    return f"{count} epochs are shared: computed once, the same bytes in all"


def _parting_lines(comparison: Comparison) -> Iterator[str]:
    parting = comparison.parting
    if parting is None:
        return
    at: dict[int, list[str]] = {}
    for name, update in parting.metrics.items():
        if not name.startswith(GROUP):
            at.setdefault(update, []).append(name)
    yield f"they part in epoch {parting.epoch}:"
    for update, names in [*at.items()][:SHOWN_PARTINGS]:
        yield f"  update {update}: {', '.join(names)}"


def _draw_curves(comparison: Comparison) -> None:
    """A line of blocks for each run, of the loss and the metrics of validation."""
    from epochal.tasks.compare.compare import alike

    is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    if not is_unicode or console.out.width < LEAST_WIDTH:
        return
    wide = max(map(len, comparison.names))
    room = min(MAX_DRAWN, console.out.width - wide - 24)
    for name, curve in comparison.curves.items():
        if all(len(one) < 2 for one in curve) or alike(curve):  # noqa: PLR2004 - a point is no line
            continue
        console.out.print()
        console.out.print(f"{name} by epoch")
        lines = draw(curve, width=room)
        width = max(map(len, lines))
        for run, drawn, values in zip(comparison.names, lines, curve, strict=True):
            ends = [value for value in values if value is not None]
            text = f"{console.number(ends[0], 3)} → {console.number(ends[-1], 3)}" if ends else ""
            console.out.print(f"  {run:<{wide}}  {drawn:<{width}}  {text}")


def draw(curves: Sequence[Sequence[float | None]], *, width: int) -> list[str]:
    """Each curve as blocks on one scale, at most `width` of them; a gap is a space.

    By logarithms where all are above 0 and the largest is ten times the smallest or more.
    """
    longest = max(map(len, curves))
    finite = [one for curve in curves for one in curve if one is not None]
    by_log = bool(finite) and min(finite) > 0 and max(finite) >= 10 * min(finite)
    scale = math.log if by_log else float
    scaled = [[None if one is None else scale(one) for one in curve] for curve in curves]
    known = [one for curve in scaled for one in curve if one is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    count = min(width, longest)
    lines = []
    for curve in scaled:
        line = ""
        for place in range(count):
            begin, end = place * longest // count, max((place + 1) * longest // count, 1)
            part = [one for one in curve[begin:end] if one is not None]
            line += _block(sum(part) / len(part), low, high) if part else " "
        lines.append(line.rstrip())
    return lines


def _block(value: float, low: float, high: float) -> str:
    share = (value - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(int(share * len(BLOCKS)), len(BLOCKS) - 1)]
