"""Run or reuse: each stage asks the store first; what is done is told and delivered, not redone."""

from __future__ import annotations

import time

from epochal.data.errors import EpochalError, TrainingFailed
from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.planning.stage import Stage
from epochal.tasks.reporting import Outcome
from epochal.tasks.session.session import Session
from epochal.tasks.stages import BODIES


def run_stage(session: Session, kind: str, epoch: int | None) -> Outcome:
    """The stage's outcome: found in the store, or computed and committed.

    Raises TrainingFailed if the user's code raises; what Epochal itself raises goes through.
    """
    stage = session.stage(kind, epoch)
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
    session.tracker.deliver(kind, epoch, record)
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
