"""How a run gets on, as a person sees it in the terminal. Decides nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from epochal.data.errors import EpochalError
from epochal.flows import console
from epochal.flows.terminal.pace import EpochPace, RunPace, clock_text
from epochal.flows.terminal.region import Region, Row
from epochal.flows.terminal.style import ACCENT, GOOD, QUIET, may_move
from epochal.tasks.planning.stage import Stage
from epochal.tasks.printable import printable
from epochal.tasks.reporting import Live, Outcome
from epochal.tasks.stages.registry import KINDS

PLAIN_EVERY_S = 30.0
"""Between two lines of one epoch where nothing may move, as in a file."""
PLAIN_WAIT_S = 10.0
"""How long something must take to be worth a line there."""


class ProgressReporter:
    """What a run is at, below the lines of what is done; on standard error.

    Standard output stays for results. On a terminal the last lines move: the epoch with its bar,
    its numbers, and the whole run. Elsewhere there is a line for each stage, and one now and then
    while it takes long.

    bar: none where the user's code runs in this process, whose debugger may ask for a line.
    """

    def __init__(self, *, bar: bool = True) -> None:
        self._moves = bar and may_move(console.err)
        self._ticks = bar and not self._moves
        self._region = Region(console.err, self._rows) if self._moves else nullcontext()
        self._ended = threading.Event()
        self._lock = threading.RLock()
        self._cached = 0
        self._shown = _Shown()
        self._run = _RunAtWork(time.monotonic())
        self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        self._region.__enter__()
        if self._ticks:
            threading.Thread(target=self._tick, name="epochal-progress", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._region.__exit__(kind, error, trace)

    # --- before and behind the stages ---------------------------------------------------------

    def doing(self, text: str) -> None:
        """Shows it with the seconds that it takes; where nothing moves, if that is long."""
        self._show(_Shown(label=printable(text)))

    def linked(self, title: str, url: str) -> None:
        """Writes it, in full: a terminal makes a link of it."""
        console.say_link(title, url)

    def planned(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        """Notes how many epochs there are, for the line of the whole run."""
        trained = [stage for stage in stages if stage.kind == "train"]
        with self._lock:
            self._run.epochs = len(trained)
            self._run.pace.missing = {
                stage.number for stage in trained if stage.known_key not in done
            }

    def opening(self, text: str) -> None:
        """Writes it above everything else."""
        console.err.print(text)

    def reading(self, field: str, done: int, count: int) -> None:
        """Shows a bar while a data set is read that takes some time."""
        if done >= count:
            return
        with self._lock:
            if self._shown.counts != "items" or not self._shown.label.endswith(field):
                self._show(_Shown(label=f"reading {field}"))
        self.counted("items", done, count)

    # --- a stage ------------------------------------------------------------------------------

    def started(self, stage: Stage) -> None:
        """Shows the stage."""
        self._say_cached()
        with self._lock:
            self._show(_Shown(label=stage.label, stage=stage))
            self._run.began(stage, now=time.monotonic())

    def resumed(self, epoch: int, update: int, num_updates: int) -> None:
        """Writes where the epoch goes on."""
        with self._lock:
            self._run.pace.resumed()
        console.err.print(
            console.line(("↪", ACCENT), f" {resumed_text(epoch, update, num_updates)}")
        )

    def live(self, live: Live) -> None:
        """Moves the bar of the epoch; where nothing moves, writes a line now and then."""
        now = time.monotonic()
        with self._lock:
            if self._shown.stage is None:
                return  # it is being put down
            self._shown.moved(live, now=now)
        if not self._moves and now - self._told_s >= PLAIN_EVERY_S:
            self._say_plain(now)

    def counted(self, what: str, done: int, total: int) -> None:
        """Moves the bar of what has no updates."""
        now = time.monotonic()
        with self._lock:
            self._shown.counted(what, done, total, now=now)
        if not self._moves and now - self._told_s >= PLAIN_EVERY_S:
            self._say_plain(now)

    def ended(self, outcome: Outcome) -> None:
        """Writes a line for what was computed; what was cached is counted."""
        if outcome.cached:
            self._cached += 1
            return
        with self._lock:
            if outcome.stage.kind == "train":
                self._run.trained(outcome.seconds)
            self._show(_Shown(label="Prefect notes the stage"))
        self._told_s = time.monotonic()
        numbers = " · ".join([*_numbers(outcome), f"{outcome.seconds:.1f} s"])
        text = f"{outcome.stage.label:<20} {numbers}"
        console.err.print(console.wrapped("✓", GOOD, text, console.err))

    def notice(self, text: str) -> None:
        """Writes a warning."""
        console.say_note(text)

    def printed(self, line: str) -> None:
        """Nothing: it is in the output."""

    def failed(self, error: EpochalError) -> None:
        """Shows nothing more: the command ends with the error, and prints it below all else."""
        del error
        self._show(_Shown())

    def done(self) -> None:
        """Says what was cached at the end."""
        self._say_cached()
        with self._lock:
            self._run.epochs = 0

    # ------------------------------------------------------------------------------------------

    def _show(self, shown: _Shown) -> None:
        with self._lock:
            self._shown = shown

    def _say_cached(self) -> None:
        if self._cached:
            noun = "stage" if self._cached == 1 else "stages"
            console.err.print(console.line(("=", ACCENT), f" {self._cached} {noun} cached"))
            self._cached = 0

    def _rows(self) -> list[Row]:
        """What the terminal shows now."""
        now = time.monotonic()
        with self._lock:
            return [*self._shown.rows(now), *self._run.rows(self._shown, now)]

    def _tick(self) -> None:
        """Where nothing moves: says what takes long, ten seconds in and then ever more rarely."""
        said, wait_s = self._shown, PLAIN_WAIT_S
        while not self._ended.wait(1.0):
            now = time.monotonic()
            with self._lock:
                shown = self._shown
            if shown is not said:
                said, wait_s = shown, PLAIN_WAIT_S
            if shown.label and now - shown.since >= wait_s and not shown.moves:
                wait_s *= 3
                self._say_plain(now)

    def _say_plain(self, now: float) -> None:
        with self._lock:
            text = " · ".join([*self._shown.plain(now), *self._run.plain(self._shown, now)])
            self._told_s = now
        console.err.print(console.line(("…", QUIET), f" {text}"))


class _Shown:
    """What is gone on with now: a stage, or something around the stages."""

    def __init__(self, label: str = "", stage: Stage | None = None) -> None:
        self.label = label
        self.stage = stage
        self.since = time.monotonic()
        self.counts = ""
        self.pace: EpochPace | None = None
        self._live: Live | None = None
        self._counted: tuple[int, int, EpochPace] | None = None

    @property
    def moves(self) -> bool:
        """Whether it is known how far it is."""
        return self._live is not None or self._counted is not None

    def moved(self, live: Live, *, now: float) -> None:
        if self.pace is None or self._live is None or live.epoch != self._live.epoch:
            self.pace = EpochPace(live.num_updates)
        self.pace.moved(live.update, live.samples, now=now)
        self._live, self._counted, self.counts = live, None, ""

    def counted(self, what: str, done: int, total: int, *, now: float) -> None:
        if what != self.counts or self._counted is None:
            self._counted = (done, total, EpochPace(total))
        pace = self._counted[2]
        pace.moved(done, done, now=now)
        self._counted, self.counts = (done, total, pace), what

    @property
    def share(self) -> float:
        """What of the epoch's updates is done."""
        return 0.0 if self._live is None else self._live.update / self._live.num_updates

    def rows(self, now: float) -> list[Row]:
        if not self.label:
            return []
        if self._live is not None:
            counted = [] if self._counted is None else [self._count_text()]
            head = Row(self.label, self.share, self._of_epoch(now), spins=True)
            return [head, Row("", parts=[*counted, *self._numbers()])]
        if self._counted is not None:
            done, total, pace = self._counted
            left = _left_text(pace.left_s(now))
            return [Row(self.label, done / total, [f"{done:,} of {total:,}", *left], spins=True)]
        gone = now - self.since
        return [Row(self.label, parts=[f"{gone:.0f} s"], spins=True)]

    def plain(self, now: float) -> list[str]:
        """The same on one line."""
        if self._live is not None:
            counted = [] if self._counted is None else [self._count_text()]
            update = f"update {self._live.update:,} of {self._live.num_updates:,}"
            left = _left_text(None if self.pace is None else self.pace.left_s(now))
            return [f"{self.label}: {update}", *counted, *self._numbers(), *left]
        if self._counted is not None:
            return [f"{self.label}: {self._count_text()}"]
        return [f"{self.label}: {now - self.since:.0f} s"]

    def _of_epoch(self, now: float) -> list[str]:
        assert self._live is not None
        left = None if self.pace is None else self.pace.left_s(now)
        return [f"{self._live.update:,} of {self._live.num_updates:,}", *_left_text(left)]

    def _count_text(self) -> str:
        assert self._counted is not None
        return f"{self._counted[0]:,} of {self._counted[1]:,} {self.counts}"

    def _numbers(self) -> list[str]:
        live = self._live
        assert live is not None
        speed = None if self.pace is None else self.pace.samples_per_second
        return [
            f"loss {live.loss:.4f}",
            f"rate {live.learning_rate:.2e}",
            f"norm {live.gradient_norm:.3f}",
            *([] if speed is None else [f"{speed:,.0f} samples/s"]),
        ]


class _RunAtWork:
    """The whole run: which of its epochs are done, since when, and what is left."""

    def __init__(self, now: float) -> None:
        self.epochs = 0
        self.pace = RunPace()
        self._since = now

    def began(self, stage: Stage, *, now: float) -> None:
        if stage.kind == "train":
            self.pace.began(stage.number, now=now)
        elif stage.epoch is None:  # an average, behind all epochs
            self.pace.ended(now=now)

    def trained(self, seconds: float) -> None:
        self.pace.trained(seconds)

    def rows(self, shown: _Shown, now: float) -> list[Row]:
        if not self.epochs:
            return []
        share = (self._done + shown.share) / self.epochs
        left = _left_text(self.pace.left_s(shown.pace, now=now))
        gone = f"{clock_text(now - self._since)} elapsed"
        return [Row("run", min(share, 1.0), [f"{self._done} of {self._noun}", *left], gone)]

    def plain(self, shown: _Shown, now: float) -> list[str]:
        """The same in words."""
        if not self.epochs:
            return []
        return [
            f"run: {self._done} of {self._noun}",
            *_left_text(self.pace.left_s(shown.pace, now=now)),
        ]

    @property
    def _done(self) -> int:
        return self.epochs - len(self.pace.missing)

    @property
    def _noun(self) -> str:
        return f"{self.epochs} epoch{'s' * (self.epochs != 1)}"


class Counting:
    """A bar for something that is counted, on standard error where that is a terminal."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._shown = _Shown(label=doing)
        moves = may_move(console.err)
        self._region = Region(console.err, self._rows) if moves else nullcontext()

    def __enter__(self) -> Self:
        self._region.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._region.__exit__(kind, error, trace)

    def told(self, done: int, total: int | None, what: str) -> None:
        """Moves the bar to `done` of `total`; None: nobody knows how many there are."""
        if total is None:
            self._shown.label = f"{self._doing} {what}: {done:,}"
        else:
            self._shown.label = self._doing
            self._shown.counted(what, done, total, now=time.monotonic())

    def _rows(self) -> list[Row]:
        return self._shown.rows(time.monotonic())


def resumed_text(epoch: int, update: int, num_updates: int) -> str:
    """Where an epoch goes on that an earlier try has begun."""
    return f"epoch {epoch} goes on at update {update:,} of {num_updates:,}"


def outcome_text(outcome: Outcome) -> str:
    """How a stage ended, on one plain line."""
    parts = [*_numbers(outcome), "cached" if outcome.cached else f"{outcome.seconds:.1f} s"]
    if outcome.resumed_at is not None:
        parts.append(f"went on from micro-step {outcome.resumed_at}")
    return f"{outcome.stage.label}: {' · '.join(parts)}"


def _left_text(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"ETA {clock_text(seconds)}"]


def _numbers(outcome: Outcome) -> list[str]:
    return KINDS[outcome.stage.kind].line(outcome.stage, outcome.record)
