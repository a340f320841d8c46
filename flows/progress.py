"""How a run gets on, as a person sees it in the terminal. Decides nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from epochal.data.errors import EpochalError
from epochal.flows import console
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Live, Outcome
from epochal.tasks.stages.registry import KINDS


class ProgressReporter:
    """A progress bar for the epoch at work, above it a line for each epoch that is done.

    Draws on standard error, so that standard output stays for results; where that is no
    terminal, only the lines are written.

    bar: none where the user's code runs in this process, whose debugger may ask for a line.
    """

    def __init__(self, *, bar: bool = True) -> None:
        self._cached = 0
        self._task: TaskID | None = None
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console.err,
            transient=True,
            disable=not (bar and console.err.is_terminal),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def opening(self, text: str) -> None:
        """Writes it above everything else."""
        console.err.print(text)

    def started(self, stage: Stage) -> None:
        """Shows a bar for the stage."""
        self._say_cached()
        self._bar(stage.label, total=None, numbers="")

    def live(self, live: Live) -> None:
        """Moves the bar of the epoch."""
        if self._task is None:
            return
        self._progress.update(
            self._task,
            total=live.num_updates,
            completed=live.update,
            numbers=(
                f"loss {live.loss:.4f} · rate {live.learning_rate:.2e} · "
                f"gradient norm {live.gradient_norm:.3f}"
            ),
        )

    def ended(self, outcome: Outcome) -> None:
        """Writes a line for what was computed; what was cached is counted."""
        if outcome.cached:
            self._cached += 1
            return
        self._clear()
        numbers = "".join(f"{text} · " for text in _numbers(outcome))
        seconds = (f"{outcome.seconds:.1f} s", "dim")
        console.err.print(
            console.line(("✓", "green"), f" {outcome.stage.label:<20} {numbers}", seconds)
        )

    def notice(self, text: str) -> None:
        """Writes a warning."""
        console.say_note(text)

    def printed(self, line: str) -> None:
        """Nothing: it is in the output."""

    def failed(self, error: EpochalError) -> None:
        """Shows nothing: the command ends with the error, and prints it below all else."""

    def done(self) -> None:
        """Says what was cached at the end."""
        self._say_cached()
        self._clear()

    def _say_cached(self) -> None:
        if self._cached:
            noun = "stage" if self._cached == 1 else "stages"
            console.err.print(console.line(("=", "cyan"), f" {self._cached} {noun} cached"))
            self._cached = 0

    def _bar(self, label: str, *, total: int | None, numbers: str) -> None:
        self._clear()
        self._task = self._progress.add_task(label, total=total, numbers=numbers)

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def outcome_text(outcome: Outcome) -> str:
    """How a stage ended, on one plain line."""
    parts = [*_numbers(outcome), "cached" if outcome.cached else f"{outcome.seconds:.1f} s"]
    if outcome.resumed_at is not None:
        parts.append(f"went on from micro-step {outcome.resumed_at}")
    return f"{outcome.stage.label}: {' · '.join(parts)}"


def _numbers(outcome: Outcome) -> list[str]:
    return KINDS[outcome.stage.kind].line(outcome.stage, outcome.record)
