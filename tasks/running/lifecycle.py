"""From a config to a session with its ledger, and from its end, good or bad, to the result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.data.store.documents import dump_document
from epochal.tasks.config.run import RunConfig
from epochal.tasks.preflight.tracker import check_tracker
from epochal.tasks.reporting import Reporter, current_reporter
from epochal.tasks.run_data.sample_images import read_images
from epochal.tasks.running.tracked_run import final_tags, make_tracker
from epochal.tasks.runs.summary import (
    artifact_of,
    best_epoch,
    flat_metrics,
    stage_lines,
    stopping_line,
    weights_sha256,
)
from epochal.tasks.session.session import Session, open_session, working_on
from epochal.tasks.tracking.background import Status
from epochal.tasks.tracking.connection import tracking_uri

_prepared: dict[str, Session] = {}


@dataclass
class ActiveRun:
    """A session at work."""

    session: Session

    def result(self) -> dict[str, Any]:
        """The object that `--json` prints; whole once the block of `active_run` has ended."""
        session = self.session
        delivered = session.delivered
        return {
            "run": session.config.name,
            "mlflow_run_id": None if delivered is None else delivered.run_id,
            "mlflow_tracking_uri": session.tracker.uri,
            "weights_sha256": weights_sha256(session.needed, session.records),
            "metrics": dict(flat_metrics(session.config, session.needed, session.records)),
            "stages": stage_lines(session.outcomes),
            **stopping_line(session.config, session.stopped_after),
        }

    @property
    def epochs(self) -> range:
        """The epochs of the run, if nothing ends it sooner."""
        return range(self.session.config.epochs)

    def ends_with(self, epoch: int) -> bool:
        """Whether early stopping ends the run with this epoch; tells so."""
        stopped = self.session.stopped_after == epoch
        if stopped:
            self.session.reporter.notice(
                f"early stopping ends the run with epoch {epoch} of {len(self.epochs)}; with a "
                "larger early_stopping.patience it goes on from here"
            )
        return stopped


def prepare(config: RunConfig, *, reporter: Reporter, local_mlflow: str | None = None) -> Session:
    """Opens the run now, so that bad input is found before the flow starts; kept for the flow."""
    session = _open(config, reporter, local_mlflow)
    _prepared[_identity(config)] = session
    return session


def _open(config: RunConfig, reporter: Reporter | None, local_mlflow: str | None) -> Session:
    uri = tracking_uri(config.tracking, local_server=local_mlflow)
    check = partial(check_tracker, uri, experiment=config.tracking.experiment)
    return open_session(config, reporter=reporter, before_start=check)


def _identity(config: RunConfig) -> str:
    return config.model_dump_json()


@contextmanager
def active_run(config: RunConfig, *, local_mlflow: str | None = None) -> Iterator[ActiveRun]:
    """The run, opened or as `prepare` left it; its ledger ends with the block.

    Raises InputError before anything is computed if config, data or store are wrong, CorruptObject
    at the end if the delivery has found a damaged artifact.
    """
    session = _prepared.pop(_identity(config), None)
    if session is None:
        session = _open(config, current_reporter(), local_mlflow)
    config = session.config
    session.tracker = make_tracker(
        config,
        session.plan,
        session.run_inputs,
        session.stage_store,
        notice=session.reporter.notice,
        local_mlflow=local_mlflow,
        tags={"epochal.device": str(session.device)},
        images=partial(read_images, session.data["train_data"]),
    )
    computing = any(stage.known_key not in session.records for stage in session.needed)
    session.tracker.start(computing=computing, forks=computing and config.loader.workers > 0)
    if computing:
        _log_attempt(session)
    status: Status = "KILLED"  # what a signal or a cancellation leaves: neither is an Exception
    try:
        with working_on(session):
            yield ActiveRun(session)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        best = best_epoch(session.config.metrics, session.needed, session.records)
        session.delivered = session.tracker.finish(
            status,
            best_epoch=None if best is None else best.epoch,
            best_artifact="model" if best is None else artifact_of(best.metric),
            tags=final_tags(session.needed, session.records, stopped=session.stopped_after),
        )
    _check_lost(session)


def _check_lost(session: Session) -> None:
    """Raises CorruptObject if the delivery has found a stage damaged, which no stage has loaded."""
    lost = session.stage_store.lost
    statuses = session.stage_store.lookup(list(lost))
    problems = [lost[key] for key, status in statuses.items() if status.record is None]
    if problems:  # what `gc` has removed is none: its stage stays done
        raise CorruptObject(
            f"{'; '.join(problems)}; everything else is done: run the same command to go on, it "
            "computes this again"
        )


def _log_attempt(session: Session) -> None:
    """Who computes here, with what: a file of its own for each command that computes."""
    import os
    import socket
    import time
    import uuid
    from importlib import metadata

    body: dict[str, Any] = {
        "started_ms": int(time.time() * 1000),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "environment": session.environment,
        "folder": session.config.folder,
        "versions": {
            name: metadata.version(name)
            for name in ("torch", "numpy", "pyarrow", "prefect", "mlflow", "fsspec", "epochal")
        },
        "plan": session.plan.reference,
    }
    name = f"runs/{session.config.name}/attempts/{body['started_ms']}-{uuid.uuid4().hex[:8]}.json"
    with suppress(FileExistsError):  # the answer to a first try got lost
        session.store.put_new(name, dump_document(body))
