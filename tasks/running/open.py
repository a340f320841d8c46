"""From a config to a run that can be worked on, and what is checked before it starts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from epochal.data.errors import PreflightFailed, StoreUnavailable, TrainingFailed
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.data.store.retry import RetryPolicy
from epochal.data.store.store import Store
from epochal.tasks.config.load import refuse_secrets
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import RunView, differences
from epochal.tasks.planning.stage import RunInputs
from epochal.tasks.preflight.disk_space import CheckpointSize, check_space
from epochal.tasks.preflight.processes import notes_on_processes
from epochal.tasks.reporting import Reporter, SilentReporter
from epochal.tasks.run_data.told_data import told_data
from epochal.tasks.running.run import Run
from epochal.tasks.running.start_trainer import INLINE, start_trainer
from epochal.tasks.runs.plan import opening_line
from epochal.tasks.runs.run_plans import record_plan
from epochal.tasks.runs.survey import survey
from epochal.tasks.runs.warm_start import find_weights, start_sha256
from epochal.tasks.session.session import Session
from epochal.tasks.stages.registry import list_stages
from epochal.tasks.trainer.interruption import Interruption
from epochal.tasks.trainer.trainer import Trainer

Opened = TypeVar("Opened")


def _nothing() -> None:
    """What is done meanwhile where nothing is."""


def open_run(
    config: RunConfig,
    *,
    reporter: Reporter | None = None,
    before_start: Callable[[], None] = _nothing,
    meanwhile: Callable[[], None] = _nothing,
) -> Run:
    """Reads the data, lists the stages, looks up which are done, and checks before computing.

    A config that did not come from a file is refused here if it holds a password.

    before_start: the caller's own checks, called if something is to be computed. meanwhile: called
    while the trainer begins.
    Nothing has started when it raises: InputError for what is wrong with config, data or store.
    """
    return _opened(
        config,
        partial(open_store, config.store, folder=Path(config.folder)),
        reporter or SilentReporter(),
        before_start,
        meanwhile,
        _recorded,
    )


def open_session(config: RunConfig, store: Store, *, reporter: Reporter) -> Session:
    """Opens it as `open_run` does, of which nobody makes a run: no plan is written.

    store: the config's, or one that stands for it.
    """
    return _opened(config, lambda: store, reporter, _nothing, _nothing, lambda session: session)


def _opened(
    config: RunConfig,
    opens: Callable[[], Store],
    reporter: Reporter,
    before_start: Callable[[], None],
    meanwhile: Callable[[], None],
    made: Callable[[Session], Opened],
) -> Opened:
    refuse_secrets(config.model_dump(mode="json"), name=config.name)
    try:
        store = opens()
        interruption = Interruption()
        reporter.doing("starting the trainer, which imports torch")
        with ExitStack() as stack:
            trainer = start_trainer(config, store, reporter, interruption)
            stack.callback(trainer.close)
            meanwhile()
            session = _open(config, store, trainer, reporter, interruption, before_start)
            opened = made(session)
            # Up to here a store that does not answer means a wrong config. From here on it is taken
            # to be away for a while, and asked again.
            store.retry_with(
                RetryPolicy.of_environment(
                    hurried=lambda: interruption.came, notice=reporter.notice
                )
            )
            stack.pop_all()
            return opened
    except (StoreUnavailable, TrainingFailed) as error:
        meant = PreflightFailed(str(error))
        meant.trace = error.trace
        raise meant from error


def _open(
    config: RunConfig,
    store: Store,
    trainer: Trainer,
    reporter: Reporter,
    interruption: Interruption,
    before_start: Callable[[], None],
) -> Session:
    check_store = cache(store.preflight)  # before the first write, and once
    opened, ids = trainer.ask_for(
        "open",
        {"config": config.model_dump(mode="json"), "store": store.url},
        answers={
            "check_store": check_store,
            "start_sha256": partial(start_sha256, config),
            "reading": reporter.reading,
        },
    )
    run_inputs = RunInputs.of_document(opened["run_inputs"])
    data = told_data(opened["data"], ids or b"", make=lambda *_: None)
    config = trainer.config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
    reporter.doing("looking up what is done")
    stage_store = StageStore(store)
    view = _view(config, run_inputs, stage_store, reporter)
    weights, size, forms = find_weights(config), None, {}
    if not view.is_whole:
        check_store()
        checked, _ = trainer.ask_for("check", {"config": config.model_dump(mode="json")})
        size, forms = CheckpointSize(**checked["size"]), checked["forms"]
        if checked["run_inputs"] is not None:
            run_inputs = RunInputs.of_document(checked["run_inputs"])
            view = _view(config, run_inputs, stage_store, reporter)
    stages = tuple(view.stages)
    if size is not None and not view.is_whole:
        check_space(
            config,
            size,
            store_url=store.url,
            epochs=sum(stage.kind == "train" and not view.is_done(stage) for stage in stages),
            num_samples=data["train_data"].info.num_samples,
            notice=reporter.notice,
        )
        if weights is not None and not view.is_done(stages[0]):
            with weights.opened() as path:
                trainer.ask_for("check_start", {"path": str(path), "what": weights.what})
        reporter.doing("looking whether MLflow answers")
        if config.launch.kind == "inline":
            reporter.notice(INLINE)
        for text in notes_on_processes(config, threads=opened["environment"]["threads"]):
            reporter.notice(text)
        before_start()
    session = Session(
        run=view,
        run_inputs=run_inputs,
        store=store,
        stage_store=stage_store,
        trainer=trainer,
        data=data,
        device=opened["device"],
        environment=opened["environment"],
        reporter=reporter,
        start=weights,
        interruption=interruption,
        forms=forms,
    )
    reporter.planned(view.needed, list(view.records))
    reporter.opening(opening_line(view, run_inputs, store))
    _refuse_or_tell(view, session)
    return session


def _recorded(session: Session) -> Run:
    """The run of a session, its plan written down."""
    view = session.run
    plan = record_plan(session.store, view.config, session.run_inputs, tuple(view.stages))
    return Run(session, plan)


def _view(
    config: RunConfig, run_inputs: RunInputs, stage_store: StageStore, reporter: Reporter
) -> RunView:
    stages = tuple(list_stages(config, run_inputs))
    return RunView(config, stages, survey(stage_store, stages, notice=reporter.notice))


def _refuse_or_tell(view: RunView, session: Session) -> None:
    """Reports stages from another numerics environment, or refuses them if the config says so."""
    found = dict.fromkeys(
        text
        for stage in view.stages
        if view.is_done(stage)
        for text in differences([view.record_of(stage).environment], session.environment_of(stage))
    )
    if not found:
        return
    text = f"stages of this run come from another numerics environment ({'; '.join(found)})"
    if view.config.reproducibility == "strict":
        raise PreflightFailed(
            f"{text}; `reproducibility: strict` refuses them: run there, use another store, or "
            "set `reproducibility: warn`"
        )
    session.reporter.notice(
        f"{text}; they are used, for neither versions nor devices are in a key: the result is not "
        "bitwise that of one environment"
    )
