"""`epochal watch`: a run that works elsewhere, on this machine or by its store, as it goes on."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from epochal.data.documents import load_document
from epochal.data.errors import CorruptObject, Interrupted, NotFound
from epochal.data.stage_store.status import PARTIAL, stage_folder
from epochal.flows import console
from epochal.flows.commands.machine.logs import attempts_elsewhere
from epochal.flows.commands.machine.status import since
from epochal.flows.commands.options import OfConfig, RunName, StoreOption
from epochal.flows.progress import ProgressReporter
from epochal.flows.terminal.style import may_move
from epochal.tasks.config.load import load_config
from epochal.tasks.goodput.run import run_goodput
from epochal.tasks.reporting import Live
from epochal.tasks.running.journal import Attempt, attempts
from epochal.tasks.runs.find_run import FoundRun, find_run, is_config
from epochal.tasks.runs.summary import EpochRow, epoch_rows

MAX_COMMIT_BYTES = 1 << 28
PLAIN_EVERY_S = 30.0
_RECENT = 3
"""Epochs whose seconds say how long the next ones take."""

Every = Annotated[
    float,
    typer.Option("--every", metavar="SECONDS", min=0.2, help="Between two looks at the store."),
]


def watch(
    run: RunName,
    every: Every = 2.0,
    overrides: OfConfig = None,
    store: StoreOption = None,
) -> None:
    """Follow a run that works elsewhere: epochs, metrics, rate and what is left; ends with it.

    Reads the store alone, and what a process of this machine tells. Exit code 75 where the process
    has ended and the run has not.
    """
    told: set[int] = set()
    with ProgressReporter() as view:
        shown = _Shown(view)
        while True:
            found = _found(run, store, overrides or ())
            if found is None:
                shown.waits(f"{run}: starting")
                time.sleep(every)
                continue
            attempt = _attempt_of(found)
            for row in epoch_rows(found):
                if row.epoch not in told and _is_told(found, row):
                    told.add(row.epoch)
                    shown.line(_row_text(found, row))
            if found.is_whole or found.stopped_after is not None:
                break
            if attempt is not None and not attempt.is_alive:
                # Once more: it may have ended between the two looks.
                again = find_run(run, store=store, overrides=overrides or ())
                if not again.is_whole:
                    raise Interrupted(
                        f"{found.plan.reference}: its process {attempt.pid} has ended "
                        f"({attempt.body.get('doing')}), epoch {_current(found)} has not: "
                        f"`epochal logs {found.plan.run}` has its last words"
                    )
                continue
            shown.at_work(found, attempt)
            time.sleep(every)
    console.out.print(f"{found.plan.reference} is done{_stopped(found)}: {_best_text(found)}")


def _found(run: str, store: str | None, overrides: Sequence[str]) -> FoundRun | None:
    """The run; None while a process of this machine begins it, before it is in any store."""
    try:
        return find_run(run, store=store, overrides=overrides)
    except NotFound:
        name = load_config(run, overrides=overrides).name if is_config(run) else run
        if not any(one.is_alive for one in attempts(name)):
            raise
        return None


def _stopped(run: FoundRun) -> str:
    return "" if run.stopped_after is None else f", stopped early with epoch {run.stopped_after}"


def _best_text(run: FoundRun) -> str:
    best = run.best
    weights = f"weights sha256 {(run.weights_sha256 or console.NOTHING)[:12]}"
    if best is None:
        return weights
    return f"best {best.metric} {console.number(best.value)} in epoch {best.epoch}, {weights}"


class _Shown:
    """What is drawn: the view of a run of one's own where a terminal moves, else plain lines."""

    def __init__(self, view: ProgressReporter) -> None:
        self._view = view
        self._moves = may_move(console.err)
        self._stage: str | None = None
        self._shown_s = -PLAIN_EVERY_S

    def line(self, text: str) -> None:
        """What stays: an epoch that is done."""
        # Above what moves, which is on standard error.
        (console.err if self._moves else console.out).print(text)

    def waits(self, text: str) -> None:
        """What the run is at, where no numbers come."""
        if self._moves:
            self._stage = None
            self._view.doing(text)
        elif time.monotonic() - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = time.monotonic()
            console.err.print(text)

    def at_work(self, run: FoundRun, attempt: Attempt | None) -> None:
        """Where the run stands: moved by what its process tells, or in words."""
        live = None if attempt is None or not attempt.is_alive else _live(attempt.body)
        stage = None if live is None else run.stage("train", live.epoch)
        if not self._moves or live is None or stage is None or run.is_done(stage):
            self.waits(_place_text(run, attempt))
            return
        if self._stage != stage.label:
            self._stage = stage.label
            done = {one.known_key for one in run.stages if run.is_done(one)}
            self._view.planned(run.stages, done)
            self._view.started(stage)
        self._view.live(live)


def _live(body: Mapping[str, Any]) -> Live | None:
    """What the process noted last, if it is at an update."""
    names = ("epoch", "update", "num_updates", "loss", "learning_rate", "gradient_norm", "samples")
    told = {name: body.get(name) for name in names}
    if not all(isinstance(value, int | float) for value in told.values()):
        return None
    return Live(**cast("dict[str, Any]", told))


def _attempt_of(run: FoundRun) -> Attempt | None:
    """The newest attempt on this machine at this generation, unless a newer one is elsewhere."""
    here = next(
        (
            one
            for one in attempts(run.plan.run)
            if one.body.get("reference") in {run.plan.reference, None}
            and one.body.get("store") in {run.store.url, run.config.store}
        ),
        None,
    )
    if here is None or here.is_alive:
        return here
    newest = next(iter(attempts_elsewhere(run.store, run.plan.run, (), at_most=1)), None)
    if newest is None or newest["host"] == socket.gethostname():
        return here
    return None if newest["started_ms"] > here.body["started_ms"] else here


def _is_told(run: FoundRun, row: EpochRow) -> bool:
    """Whether all that the epoch's line shows is there."""
    return all(
        run.is_done(stage)
        for stage in run.needed
        if stage.epoch == row.epoch and stage.kind == "validate"
    )


def _row_text(run: FoundRun, row: EpochRow) -> str:
    metrics = [
        f"{'validation loss' if name == 'loss' else name} {console.number(value)}"
        for name, value in row.metrics.items()
    ]
    parts = [f"loss {console.number(row.loss)}", *metrics]
    if row.gradient_norm is not None:
        parts.append(f"gradient norm {console.number(row.gradient_norm, 3)}")
    if row.trained is not None:
        parts.append(f"{row.trained:,} samples")
    return f"epoch {row.epoch} of {run.config.epochs}  {' · '.join(parts)}"


def _current(run: FoundRun) -> int:
    newest = run.newest_epoch("train")
    return 0 if newest is None else min(newest + 1, run.config.epochs - 1)


@dataclass(frozen=True)
class _Place:
    """Where the epoch at work stands, as far as anything tells."""

    epoch: int
    share: float | None
    parts: Sequence[str]


def _place_text(run: FoundRun, attempt: Attempt | None) -> str:
    place = _told_place(run, attempt) or _committed_place(run)
    parts = [f"epoch {place.epoch} of {run.config.epochs}", *place.parts]
    left = _left_s(run, place)
    if left is not None:
        parts.append(f"{since((time.time() - left) * 1000)} left")
    return " · ".join(parts)


def _told_place(run: FoundRun, attempt: Attempt | None) -> _Place | None:
    """By what the run's process on this machine notes each second."""
    if attempt is None or not attempt.is_alive:
        return None
    body = attempt.body
    update, total = body.get("update"), body.get("num_updates")
    if not isinstance(update, int) or not isinstance(total, int) or not total:
        return _Place(_current(run), None, [str(body.get("doing", "")), f"pid {attempt.pid}"])
    numbers = [
        f"{name} {console.number(body.get(key), 4)}"
        for name, key in (("loss", "loss"), ("rate", "learning_rate"), ("norm", "gradient_norm"))
        if isinstance(body.get(key), int | float)
    ]
    parts = [f"update {update} of {total}", *numbers, f"pid {attempt.pid}"]
    return _Place(int(body.get("epoch") or _current(run)), update / total, parts)


def _committed_place(run: FoundRun) -> _Place:
    """By the newest commit inside the epoch at work."""
    epoch = _current(run)
    stage = run.stage("train", epoch)
    if run.is_done(stage) or stage.key is None:
        return _Place(epoch, None, ["validates, or waits"])
    folder = f"{stage_folder(stage.key)}/{PARTIAL}"
    commits = sorted(path for path in run.store.listing(folder) if path.endswith(".json"))
    if not commits:
        return _Place(epoch, None, ["no commit inside it yet"])
    try:
        body = load_document(
            run.store.read(commits[-1], max_bytes=MAX_COMMIT_BYTES),
            name=commits[-1],
            max_bytes=MAX_COMMIT_BYTES,
        )
    except (CorruptObject, FileNotFoundError):
        return _Place(epoch, None, ["its newest commit cannot be read"])
    steps, total = body.get("micro_steps"), _micro_steps(run)
    if not isinstance(steps, int) or total is None:
        return _Place(epoch, None, [f"micro-step {steps} is committed"])
    return _Place(epoch, steps / total, [f"micro-step {steps} of {total} is committed"])


def _micro_steps(run: FoundRun) -> int | None:
    """Of an epoch on all samples."""
    rows, config = run.plan.num_samples, run.config
    if rows is None or config.varies_batches:
        return None
    return -(-config.epoch_rows(rows) // config.loader.batch_size)


def _left_s(run: FoundRun, place: _Place) -> float | None:
    """Seconds until the run's end, from those of its last epochs."""
    goodput = run_goodput(run, run.stage_store)
    if goodput is None or not goodput.epochs:
        return None
    seconds = [one.wall_seconds for one in list(goodput.epochs.values())[-_RECENT:]]
    epochs_left = run.config.epochs - place.epoch - (place.share or 0.0)
    return max(0.0, epochs_left * sum(seconds) / len(seconds))
