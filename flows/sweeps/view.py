"""What a person sees of a sweep: a table while it works, and one of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from epochal.flows import console
from epochal.flows.terminal.fitting import Column
from epochal.flows.terminal.style import ACCENT, BAD, GOOD, NOTE, QUIET, may_move
from epochal.tasks.config.run import flatten
from epochal.tasks.sweeps.cost import Cost
from epochal.tasks.sweeps.logs import logs_of
from epochal.tasks.sweeps.work import State, SweepWork

_STYLES: Mapping[State, str] = {
    "done": GOOD,
    "at work": ACCENT,
    "failed": BAD,
    "interrupted": NOTE,
    "stopped": QUIET,
    "waiting": QUIET,
}
_ORDER: Sequence[State] = ("at work", "failed", "interrupted", "waiting", "done", "stopped")
_OTHER_LINES = 6  # of the terminal: heading, summary, the prompt
MOST_COLUMNS = 4  # of what differs, in the table of results
MAX_CELL = 24


class SweepView:
    """A table that is kept fresh on standard error; lines of text where that is no terminal."""

    def __init__(self, work: SweepWork, *, bar: bool = True) -> None:
        self._work, self._noted = work, set[str]()
        self._lines = not (bar and may_move(console.err))
        self._live = Live(
            console=console.err,
            get_renderable=self._drawn,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if not self._lines:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._lines:
            self._live.stop()

    def notice(self, text: str, *, run: str | None = None) -> None:
        """A warning, above the table. What several runs say alike is written once."""
        if text in self._noted:
            return
        self._noted.add(text)
        console.say_note(text if run is None else f"{run}: {text}")

    def said(self, run: str, event: Mapping[str, Any]) -> None:
        """Tells in a line what is worth one; the table shows the rest."""
        kind = event["event"]
        if kind == "notice":
            self.notice(event["text"], run=run)
        elif kind == "failed":
            style = NOTE if event["interrupted"] else BAD
            mark = "interrupted" if event["interrupted"] else "failed"
            console.err.print(console.line((f"{mark}:", style), f" {run}: {event['text']}"))
            self._failed(run, event)
        elif kind == "stage" and self._lines and not event["cached"]:
            took = event["seconds"]
            seconds = ("in the pool" if took is None else f"{took:.1f} s", QUIET)
            label = event["kind"]
            if event["epoch"] is not None:
                label += f" · epoch {event['epoch']}"
            numbers = "".join(f"{text} · " for text in event["line"])
            console.err.print(console.line(("✓", GOOD), f" {run}  {label}  {numbers}", seconds))
        elif kind == "finished":
            self._finished(run)

    def _failed(self, run: str, event: Mapping[str, Any]) -> None:
        """Where in the person's own files it was, and where all that it has printed is."""
        trace = str(event["trace"]).removeprefix(str(event["text"])).strip()
        if trace:
            console.err.print(trace)
        log = logs_of(self._work.sweep.name) / f"{run}.log"
        if log.is_file() and not event["interrupted"]:
            console.err.print(console.line((f"what it has printed: {log}", QUIET)))

    def _finished(self, run: str) -> None:
        state, value = self._work.states[run], self._work.value(run)
        done, count = self._work.epochs_of(run)
        shown = f"{self._work.measure.metric} {console.number(value)}"
        how = {"done": "done", "stopped": f"stopped after epoch {done - 1}"}.get(state)
        text = f" {run}  {how or f'{done} of {count} epochs'} · {shown}"
        console.err.print(console.line(("=" if state == "done" else "-", ACCENT), text))

    def summary(self) -> str:
        """How much of the sweep is done, in one line."""
        tree, work = self._work.tree, self._work
        states = list(work.states.values())
        counts = [f"{states.count(state)} {state}" for state in _STYLES if states.count(state)]
        if work.proposals_left:
            counts.append(f"{work.proposals_left} to be proposed")
        noun = "run" if len(states) == 1 else "runs"
        return (
            f"{tree.epochs_done} of {tree.epochs_distinct} epochs · {len(states)} {noun}: "
            f"{', '.join(counts)}"
        )

    def _drawn(self) -> RenderableType:
        return Group(self.table(console.err.height), Text(self.summary(), style=QUIET))

    def table(self, height: int) -> Table:
        """The runs, those at work first, as many as there is room for."""
        work = self._work
        table = Table(header_style="bold", box=None, pad_edge=False)
        table.add_column("run", overflow="ellipsis", no_wrap=True, ratio=1)
        for heading in ("state", "epoch", "now", work.measure.metric):
            table.add_column(
                heading, justify="left" if heading in {"state", "now"} else "right", no_wrap=True
            )
        states = work.states
        shown = sorted(states, key=lambda name: _ORDER.index(states[name]))
        shown = shown[: max(1, height - _OTHER_LINES)]
        for name in (name for name in states if name in {*shown}):
            done, count = work.epochs_of(name)
            state = states[name]
            table.add_row(
                name,
                console.line((state, _STYLES[state])),
                f"{done}/{count}",
                self._now(name, state),
                console.number(work.value(name)),
            )
        if len(shown) < len(states):
            table.add_row(f"… and {len(states) - len(shown)} more", "", "", "", "")
        return table

    def _now(self, name: str, state: State) -> str:
        told = self._work.told.get(name)
        if state == "waiting":
            first = self._work.tree.awaited(name, None, self._work.at_work)
            return "" if first is None else "for shared epochs"
        if state != "at work" or told is None:
            return ""
        live = told.live
        if live and live.get("num_updates"):
            share = live["update"] / live["num_updates"]
            return f"{told.doing} {share:.0%} loss {live['loss']:.3g}"
        return told.doing or "starts"


def differing(sets: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields, a group's each for itself, that have several values in the runs."""
    leaves = [leaves_of(own) for own in sets]
    names = dict.fromkeys(name for one in leaves for name in one)
    return [name for name in names if len({repr(one.get(name)) for one in leaves}) > 1]


def leaves_of(own: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has of its own, with each group of fields as the fields in it."""
    return {
        path: value
        for field, given in own.items()
        for path, value in (
            flatten(given, field) if isinstance(given, Mapping) else [(field, given)]
        )
    }


def results_table(work: SweepWork) -> Table:
    """One line per run, the best first: its metric, where that was, and what it has of its own."""
    sets = {name: leaves_of(run.member.set) for name, run in work.tree.runs.items()}
    fields = differing([run.member.set for run in work.tree.runs.values()])
    shown = fields[:MOST_COLUMNS]
    states, ranked = work.states, work.ranked
    views = [work.tree.runs[name].view for name in ranked]
    last = [work.measure.last(view) for view in views]
    best = [work.measure.best(view) for view in views]
    values = [_value(None if one is None else one.value) for one in last]
    bests = [_value(None if one is None else one.value) for one in best]
    epochs = [_value(None if one is None else one.epoch) for one in best]
    columns = [
        Column(work.measure.metric, values, right=True),
        Column("best", bests, 3, right=True, asked=True),
        Column("in epoch", epochs, 4, right=True, asked=True),
        *(
            Column(
                _heading(field, fields), [_cell(sets[name].get(field)) for name in ranked], 2,
                right=True, asked=True,
            )
            for field in shown
        ),
        Column("state", [states[name] for name in ranked], 1, styles=dict(_STYLES.items())),
        _names(ranked, beside=10),
    ]  # fmt: skip
    title = f"sweep {work.sweep.name}, by {work.measure.metric}"
    return console.fitted_table(columns, title=title)


def _names(names: Sequence[str], *, beside: int) -> Column:
    """The column of runs; broken only where so many characters beside it leave too little room."""
    return Column("run", names, folds=max(map(len, names), default=0) > console.out.width - beside)


def _value(value: float | None) -> str:
    return console.NOTHING if value is None else console.number(value)


def _heading(field: str, fields: Sequence[str]) -> str:
    last = field.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in fields) == 1 else field


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return console.number(value)
    text = console.NOTHING if value is None else str(value)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def plan_table(work: SweepWork) -> Table:
    """One line per run: how many epochs it has, how many are done, what is left for it alone."""
    runs, shared = work.tree.runs, shared_epochs(work)
    columns = [
        _names(list(runs), beside=14),
        Column("epochs", [str(run.epochs) for run in runs.values()], right=True),
        Column("done", [str(run.epochs_done) for run in runs.values()], right=True),
        Column("shared", [str(shared[name]) for name in runs], 1, right=True, asked=True),
    ]
    return console.fitted_table(columns)


def shared_epochs(work: SweepWork) -> dict[str, int]:
    """Run → how many of its epochs another run of the sweep has too."""
    users: dict[str, int] = {}
    keys = {
        name: [stage.key for stage in run.view.needed if stage.kind == "train" and stage.key]
        for name, run in work.tree.runs.items()
    }
    for own in keys.values():
        for key in own:
            users[key] = users.get(key, 0) + 1
    return {name: sum(users[key] > 1 for key in own) for name, own in keys.items()}


def plan_lines(work: SweepWork, cost: Cost) -> list[str]:
    """How much of the sweep is shared, done and left, and what the rest costs as far as known."""
    tree, left = work.tree, work.proposals_left
    saved = tree.epochs_sum - tree.epochs_distinct
    have = "1 run has" if len(tree.runs) == 1 else f"{len(tree.runs)} runs have"
    shares = (
        f"{have} {tree.epochs_sum} epochs, of which {tree.epochs_distinct} are distinct: {saved} "
        "need no training of their own"
    )
    lines = [
        shares,
        f"{tree.epochs_done} of {tree.epochs_distinct} epochs done, {cost.epochs} would run",
    ]
    if left:
        more = "1 more run is" if left == 1 else f"{left} more runs are"
        lines.append(f"{more} proposed as results come in")
    if cost.epochs == 0:
        return lines
    if cost.unknown == cost.epochs:
        lines.append("cost: not known: no epoch like these has been timed in this store yet")
    else:
        about = f"cost: about {duration(cost.seconds)} of work, by {cost.timed} timed like epochs"
        rest = f"; of {cost.unknown} epochs nothing is known" if cost.unknown else ""
        lines.append(f"{about}{rest}")
    if any(run.unread for run in tree.runs.values()):
        lines.append(
            "data not yet read: what is done, and whether data of other arguments is the same, is "
            "known once `epochal sweep` has read it"
        )
    if work.sweep.config.halving is not None:
        rungs = ", ".join(map(str, work.sweep.config.halving.rungs))
        lines.append(f"halving may stop runs after {rungs} epochs: then less is trained")
    return lines


def duration(seconds: float) -> str:
    """Seconds as people read them: `42 s`, `3 min`, `2.5 h`."""
    if seconds < 120:  # noqa: PLR2004 - above it seconds tell nothing
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"  # noqa: PLR2004 - two hours
