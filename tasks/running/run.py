"""A run at work: its session, its plan, its tracker, and what became of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from epochal.data.errors import CorruptObject, TrainingFailed
from epochal.data.stage_store.records import StageRecord
from epochal.tasks.launch.failures import at_work
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Outcome
from epochal.tasks.running.journal import Journal
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.session.session import Session
from epochal.tasks.stages.registry import KINDS, loaded


class StageTracker(Protocol):
    """Takes each stage that is done."""

    @property
    def page(self) -> str | None:
        """Where the run is below the address of the tracker's pages; None until that is known."""

    @property
    def uri(self) -> str:
        """Where the tracker is."""

    def deliver(self, record: StageRecord) -> None:
        """Takes a finished stage, computed or found; returns at once."""


@dataclass
class Run:
    """A run that is open. tracker: None until stages are run.

    until: the number of epochs after which it is left for later; None: none. journal: what keeps
    its log on this machine.
    """

    session: Session
    plan: RunPlan
    tracker: StageTracker | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    until: int | None = None
    journal: Journal | None = None

    def close(self) -> None:
        """Ends its trainer. Nothing happens if it has ended."""
        self.session.trainer.close()
        self.session.interruption.close()
        if self.journal is not None:
            self.journal.close("finished" if self.view.is_whole else "ended before its last stage")

    @property
    def view(self) -> RunView:
        """Its stages and records."""
        return self.session.run

    def stages(self) -> Iterator[Stage]:
        """The stages that belong to the run, one after the other.

        Early stopping is decided as the validations come in, and reported once.
        """
        view, epoch, last = self.view, None, None
        for stage in view.stages:
            if last is None and stage.epoch != epoch:
                epoch, last = stage.epoch, view.stopped_after
                if last is not None:
                    self.session.reporter.notice(
                        f"early stopping ends the run with epoch {last} of {view.config.epochs}; "
                        "with a larger early_stopping.patience it goes on from here"
                    )
            if self.until is not None and (stage.epoch or 0) >= self.until:
                return
            if last is None or stage.epoch is None or stage.epoch <= last:
                yield stage

    def run_stage(self, stage: Stage) -> Outcome:
        """The stage's outcome: found in the store, or computed and committed.

        Where an artifact that it loads turns out to be damaged or missing, the stage that made it
        is computed again first, once. Raises TrainingFailed if the user's code raises; what Epochal
        itself raises goes through.
        """
        waiting, repaired = [stage], set[str]()
        while True:
            try:
                outcome = self._run(waiting[-1])
            except CorruptObject:
                lost = self._lost_parents(waiting[-1])
                if not lost or any(parent.known_key in repaired for parent in lost):
                    raise
                repaired |= {parent.known_key for parent in lost}
                self._undo(lost)
                waiting += reversed(lost)  # the earliest is computed first: others may need it
                continue
            except TrainingFailed as error:
                self.session.reporter.failed(error)
                raise
            waiting.pop()
            if not waiting:
                return outcome

    def _run(self, stage: Stage) -> Outcome:
        session, records = self.session, self.view.records
        started = time.monotonic()
        record = records.get(stage.known_key)
        cached = record is not None
        if record is None:
            session.reporter.started(stage)
            with session.interruption.noted():
                record = compute(session, stage)
            records[stage.known_key] = record
        outcome = Outcome(
            stage=stage,
            record=record,
            cached=cached,
            resumed_at=session.resumed_at.get(stage.known_key),
            seconds=0.0 if cached else time.monotonic() - started,
        )
        self.outcomes.append(outcome)
        session.reporter.ended(outcome)
        if self.tracker is not None:
            self.tracker.deliver(record)
        return outcome

    def _lost_parents(self, stage: Stage) -> list[Stage]:
        """The stages whose artifacts `stage` has found damaged or missing, earliest first."""
        parents = {parent.known_key for parent in stage.parents.values()}
        lost = parents & self.session.stage_store.lost.keys()
        return [planned for planned in self.view.stages if planned.known_key in lost]

    def _undo(self, lost: list[Stage]) -> None:
        """Marks the stages as not done, and reports why."""
        keys = {stage.known_key for stage in lost}
        for stage in lost:
            problem = self.session.stage_store.lost[stage.known_key]
            self.session.reporter.notice(f"{stage.label}: {problem}; it is computed again")
            self.view.records.pop(stage.known_key, None)
        self.outcomes[:] = [told for told in self.outcomes if told.stage.known_key not in keys]


def consumed(view: RunView, stage: Stage) -> dict[str, str]:
    """`role/artifact` → sha256 of all that the stage reads of its parents."""
    return {
        f"{role}/{name}": artifact.sha256
        for role, parent in stage.parents.items()
        if (names := loaded(stage, role, view.records))
        for name, artifact in view.record_of(parent).artifacts.items()
        if name in names
    }


def compute(session: Session, stage: Stage) -> StageRecord:
    """Has the stage computed, and committed to the session's store. Raises as `run_stage` does."""
    kind = KINDS[stage.kind]
    session.goodput.begin(stage.known_key, kind.cause)
    try:
        record = kind.run(session, stage, consumed(session.run, stage))
    except BaseException as error:
        session.live_key = None
        session.goodput.failed()
        # What came of the user's code has been told by the trainer as what it means.
        meant = error if session.interruption.obeyed else at_work(error, stage.label, None)
        if meant is error:
            raise
        raise meant from error
    session.goodput.watch.switch("orchestration")
    return record


_current: ContextVar[Run | None] = ContextVar("epochal_run", default=None)


@contextmanager
def working_on(run: Run) -> Iterator[Run]:
    """Inside the block `run` is the one that the flow and its tasks work on."""
    token = _current.set(run)
    try:
        yield run
    finally:
        _current.reset(token)


def prepared_run() -> Run | None:
    """The run that the command has opened for the flow, or None where the flow is on its own."""
    return _current.get()


def current_run() -> Run:
    """The run that is worked on here. Raises TrainingFailed outside `working_on`."""
    run = _current.get()
    if run is None:
        raise TrainingFailed(
            "a stage was called outside its flow; call epochal.flows.train.train(config), which "
            "opens the run first"
        )
    return run
