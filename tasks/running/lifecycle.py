"""The life of a run: opened with its tracker, worked on, and ended, well or badly."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject, EpochalError, InputError, Interrupted
from epochal.data.traces import failure_text, in_one_line
from epochal.tasks.config.parts import SweepPart
from epochal.tasks.config.run import RunConfig
from epochal.tasks.preflight.tracker import check_tracker
from epochal.tasks.reporting import Reporter, current_reporter
from epochal.tasks.running.journal import begin_journal
from epochal.tasks.running.open import open_run
from epochal.tasks.running.pictures_process import draws_beside
from epochal.tasks.running.run import Run, prepared_run, working_on
from epochal.tasks.running.run_description import git_answer
from epochal.tasks.running.tracked_run import final_tags, make_tracker, with_others
from epochal.tasks.runs.find_run import remember_store, stores_file
from epochal.tasks.runs.summary import flat_metrics, stage_lines, stopping_line
from epochal.tasks.session.session import Session
from epochal.tasks.tracking.background import ERROR_TAG, MAX_TAG, Status, TrackerResult
from epochal.tasks.tracking.connection import tracking_uri
from epochal.tasks.tracking.model_example import ModelExample
from epochal.tasks.tracking.model_folder import Example
from epochal.tasks.trainer.trainer import Trainer


class ActiveRun:
    """A run whose stages are being run, and its result once that has ended."""

    def __init__(self, run: Run, *, mlflow_uri: str) -> None:
        self.run = run
        self.delivered: TrackerResult | None = None
        self._mlflow_uri = mlflow_uri

    def result(self) -> dict[str, Any]:
        """The object that `--json` prints; whole once the block of `active_run` has ended."""
        view = self.run.view
        return {
            "run": view.config.name,
            "mlflow_run_id": None if self.delivered is None else self.delivered.run_id,
            "mlflow_tracking_uri": self._mlflow_uri,
            "weights_sha256": view.weights_sha256,
            "metrics": flat_metrics(view),
            "stages": stage_lines(view, self.run.outcomes),
            **stopping_line(view),
        }


def prepare(
    config: RunConfig,
    *,
    reporter: Reporter | None,
    local_mlflow: str | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Run:
    """Opens the run and checks that MLflow can take it. Raises InputError: nothing has started.

    meanwhile: called while the trainer begins.
    """
    draws_beside(config.store)  # a mistake in the environment is told before the start
    uri = tracking_uri(config.tracking, local_server=local_mlflow)
    check = partial(check_tracker, uri, experiment=config.tracking.experiment)
    told, journal = begin_journal(config, reporter)
    try:
        run = open_run(config, reporter=told, before_start=check, meanwhile=meanwhile)
    except BaseException as error:
        journal.close(f"did not start: {in_one_line(error)}")
        raise
    run.journal = journal
    journal.found(reference=run.plan.reference, store=run.session.store.url)
    return run


@contextmanager
def active_run(
    config: RunConfig,
    *,
    local_mlflow: str | None = None,
    part: SweepPart | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[ActiveRun]:
    """The run that the command has prepared, else opened here; its tracker ends with the block.

    part: what a sweep asks of it, if it is one of a sweep's.
    meanwhile: called while the trainer begins, where the run is opened here.
    Raises InputError before anything is computed if config, data or store are wrong, CorruptObject
    at the end if delivering to MLflow has found a damaged artifact.
    """
    run = prepared_run()
    if run is None or run.tracker is not None:  # used: by an earlier try, or by the run around this
        run = _prepared(config, local_mlflow=local_mlflow, meanwhile=meanwhile)
    session, view = run.session, run.view
    _remember_store(session)
    mlflow = make_tracker(
        view.config,
        run.plan,
        session.run_inputs,
        session.stage_store,
        notice=session.reporter.notice,
        local_mlflow=local_mlflow,
        tags={"epochal.device": session.device, **(part.tags if part is not None else {})},
        images=session.trainer.images,
        beside=draws_beside(session.store.url),
        prefect_page=_prefect_page(),
        opened=session.data,
        forms=session.forms,
        example=partial(_example, session.trainer),
    )
    tracker = with_others(
        mlflow, view.config, run.plan, session.stage_store, notice=session.reporter.notice
    )
    run.until = None if part is None else part.until
    run.tracker, session.deliver_part = tracker, tracker.deliver_part
    computing = not view.is_whole
    tracker.start(computing=computing, forks=computing and view.config.loader.workers != 0)
    if computing:
        _log_attempt(run)
        session.signs = (session.store.url, session.config.name)
    active = ActiveRun(run, mlflow_uri=tracker.uri)
    status: Status = "KILLED"  # what a signal or a cancellation leaves: neither is an Exception
    told: dict[str, str] = {}
    left = False
    try:
        with working_on(run):
            yield active
        # A sweep may leave a run for later: then some of its stages are not done.
        status = "FINISHED" if view.is_whole else "KILLED"
        left = not view.is_whole
    except Interrupted:
        raise
    except Exception as error:
        status, told = "FAILED", {ERROR_TAG: failure_text(error)[:MAX_TAG]}
        raise
    finally:
        try:
            session.reporter.doing("delivering to MLflow")
            tags = {**final_tags(view), **told}
            active.delivered = tracker.finish(
                status, best=view.best, tags=tags, hurried=False if left else None
            )
        finally:
            run.close()
    _check_lost(session)


def _example(trainer: Trainer) -> Example:
    """How the model is called, asked of the trainer; or why that is not known."""
    try:
        told, numbers = trainer.ask_for("model_call")
    except EpochalError as error:  # what is wrong with it, the run's stages have told
        return Example(None, problem=f"it could not be tried: {error}")
    if "problem" in told:
        return Example(None, problem=told["problem"])
    return Example(ModelExample.model_validate(told), numbers or b"")


def _prefect_page() -> str | None:
    """The page of the flow run that this is, or None outside of one."""
    if "prefect" not in sys.modules:
        return None
    from prefect.runtime import flow_run

    page: str | None = flow_run.ui_url
    return page


def _prepared(config: RunConfig, *, local_mlflow: str | None, meanwhile: Callable[[], None]) -> Run:
    reporter = current_reporter()
    try:
        return prepare(config, reporter=reporter, local_mlflow=local_mlflow, meanwhile=meanwhile)
    except InputError as error:
        if reporter is not None:
            reporter.failed(error)
        raise


def _remember_store(session: Session) -> None:
    """So that later commands find the run by its name alone."""
    try:
        remember_store(session.store.url)
    except OSError as error:
        session.reporter.notice(
            f"HOME: {stores_file()} cannot be written ({error}): `epochal show` and others will "
            "need --store"
        )


def _check_lost(session: Session) -> None:
    """Raises CorruptObject if delivering found a damaged stage that no other stage has loaded."""
    lost = session.stage_store.lost
    statuses = session.stage_store.lookup(list(lost))
    problems = [lost[key] for key, status in statuses.items() if status.record is None]
    if problems:  # a file that `gc` removed is no problem: its stage stays done
        raise CorruptObject(
            f"{'; '.join(problems)}; everything else is done: run the same command to go on, it "
            "computes this again"
        )


def _log_attempt(run: Run) -> None:
    """Writes down where and with which versions this command computes, in a file of its own."""
    session = run.session
    body: dict[str, Any] = {
        "started_ms": int(time.time() * 1000),
        "host": socket.gethostname(),
        # Of the config's folder; `-dirty` behind it where files have changed since.
        "git_commit": git_answer(
            Path(session.config.folder),
            *("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
        ),
        "pid": os.getpid(),
        "python": sys.version.split()[0],
        "environment": session.environment,
        "folder": session.config.folder,
        "versions": {
            name: metadata.version(name)
            for name in ("torch", "numpy", "pyarrow", "prefect", "mlflow", "fsspec", "epochal")
        },
        "plan": run.plan.reference,
    }
    name = f"runs/{session.config.name}/attempts/{body['started_ms']}-{uuid.uuid4().hex[:8]}.json"
    with suppress(FileExistsError):  # written by a first try whose answer got lost
        session.store.put_new(name, dump_document(body))
