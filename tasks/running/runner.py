"""Run or reuse: each stage asks the store first; what is done is told and delivered, not redone."""

from __future__ import annotations

import time

from epochal.data.errors import CorruptObject, EpochalError, TrainingFailed
from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Outcome
from epochal.tasks.session.session import Session
from epochal.tasks.stages import BODIES


def run_stage(session: Session, kind: str, epoch: int | None) -> Outcome:
    """The stage's outcome: found in the store, or computed and committed.

    Where an artifact that it loads turns out to be damaged or missing, the stage that made it is
    computed again first, once. Raises TrainingFailed if the user's code raises; what Epochal itself
    raises goes through.
    """
    waiting = [session.stage(kind, epoch)]
    repaired: set[str] = set()
    while True:
        try:
            outcome = _run(session, waiting[-1])
        except CorruptObject:
            lost = _lost_parents(session, waiting[-1])
            if not lost or any(stage.known_key in repaired for stage in lost):
                raise
            repaired |= {stage.known_key for stage in lost}
            _undo(session, lost)
            waiting += reversed(lost)  # the earliest is computed first: others may need it
            continue
        waiting.pop()
        if not waiting:
            return outcome


def _lost_parents(session: Session, stage: Stage) -> list[Stage]:
    """The stages of which `stage` has found an artifact damaged or missing, earliest first."""
    lost = {parent.known_key for parent in stage.parents.values()} & session.stage_store.lost.keys()
    return [one for one in session.stages if one.known_key in lost]


def _undo(session: Session, lost: list[Stage]) -> None:
    """Makes the stages ones that are not done; says why."""
    keys = {stage.known_key for stage in lost}
    for stage in lost:
        problem = session.stage_store.lost[stage.known_key]
        session.reporter.notice(f"{stage.label}: {problem}; it is computed again")
        session.records.pop(stage.known_key, None)
    session.outcomes[:] = [one for one in session.outcomes if one.stage.known_key not in keys]
    session.components = None  # `initialise` takes only what nothing has touched


def _run(session: Session, stage: Stage) -> Outcome:
    started = time.monotonic()
    record = session.records.get(stage.known_key)
    cached = record is not None
    if record is None:
        session.reporter.started(stage)
        with session.interruption.noted():
            record = _compute(session, stage)
        session.records[stage.known_key] = record
    outcome = Outcome(
        stage=stage,
        record=record,
        cached=cached,
        resumed_at=session.resumed_at.get(stage.known_key),
        seconds=0.0 if cached else time.monotonic() - started,
    )
    session.outcomes.append(outcome)
    session.reporter.ended(outcome)
    session.tracker.deliver(stage.kind, stage.epoch, record)
    return outcome


def _compute(session: Session, stage: Stage) -> StageRecord:
    try:
        return BODIES[stage.kind](session, stage)
    except EpochalError:
        session.live_key = None
        raise
    except OSError:
        session.live_key = None
        raise
    except Exception as error:  # the user's model, data, loss or metric may raise anything
        session.live_key = None
        raise TrainingFailed(
            f"{stage.label}: {type(error).__name__}: {error}{_hint(error)}; the stages before it "
            "are committed: the same command, or Retry in Prefect's UI, goes on from there"
        ) from error


def _hint(error: Exception) -> str:
    from epochal.tasks.run_data.probe_batches import ONE_SAMPLE, REMEDY

    if not str(error).startswith(ONE_SAMPLE):
        return ""
    return f" (a policy left an epoch whose last batch is a single sample: {REMEDY})"
