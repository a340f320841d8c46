"""From a config to a run that can be worked on, and what is checked before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from epochal.data.errors import (
    PreflightFailed,
    StoreUnavailable,
    TargetError,
    TrainingFailed,
    passes_through,
)
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.data.store.retry import RetryPolicy
from epochal.data.traces import in_one_line, users_line
from epochal.tasks.config.load import refuse_secrets
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import RunView, differences
from epochal.tasks.planning.stage import RunInputs
from epochal.tasks.preflight.disk_space import check_space
from epochal.tasks.preflight.forward_pass import check_before_start
from epochal.tasks.reporting import Reporter, SilentReporter
from epochal.tasks.run_data.run_data import read_run_inputs, remember_data
from epochal.tasks.running.run import Run
from epochal.tasks.runs.plan import opening_line
from epochal.tasks.runs.run_inputs import with_sources
from epochal.tasks.runs.run_plans import record_plan
from epochal.tasks.runs.run_sources import RunSources, read_sources
from epochal.tasks.runs.survey import survey
from epochal.tasks.runs.warm_start import check_start, find_weights
from epochal.tasks.session.session import Session
from epochal.tasks.stages.registry import list_stages
from epochal.tasks.user_code.components import prepare_numerics
from epochal.tasks.user_code.failures import raised_by_users_code
from epochal.tasks.user_code.files_read import forget_files
from epochal.tasks.user_code.loaded_modules import ANY, forget_modules, noting_modules


def open_run(
    config: RunConfig,
    *,
    reporter: Reporter | None = None,
    before_start: Callable[[], None] = lambda: None,
) -> Run:
    """Reads the data, lists the stages, looks up which are done, and checks before computing.

    A config that did not come from a file is refused here if it holds a password.

    before_start: the caller's own checks, called if something is to be computed.
    Nothing has started when it raises: InputError for what is wrong with config, data or store.
    """
    refuse_secrets(config.model_dump(mode="json"), name=config.name)
    try:
        return _open(config, reporter or SilentReporter(), before_start)
    except (StoreUnavailable, TrainingFailed) as error:
        raise PreflightFailed(str(error)) from error
    except BaseException as error:
        if passes_through(error) or not raised_by_users_code(error):
            raise
        raise TargetError(
            f"before the start, code that the config names raised {in_one_line(error)}"
            f"{users_line(error)}"
        ) from error


def _open(config: RunConfig, reporter: Reporter, before_start: Callable[[], None]) -> Run:
    from epochal.engine.environment import numerics_environment

    store = open_store(config.store, folder=Path(config.folder))
    device = prepare_numerics(config)
    check_store = cache(store.preflight)  # before the first write, and once
    sources = read_sources(config, store)
    forget_modules(sources.imports)
    forget_files()
    with noting_modules(ANY):
        run_inputs, data = read_run_inputs(
            config, store, sources, notice=reporter, before_write=check_store
        )
    config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
    stage_store = StageStore(store)
    view = _view(config, run_inputs, stage_store, reporter)
    environment = numerics_environment(device)
    components, weights = None, find_weights(config)
    if not view.is_whole:
        check_store()
        with noting_modules(ANY):
            components = check_before_start(config, data, device=device, notice=reporter.notice)
        built = sources.with_loaded(store)
        _tell_of_code(sources, built, reporter)
        if built.digests != sources.digests:
            run_inputs = with_sources(run_inputs, built)
            remember_data(config, store, data, run_inputs.sources)
            view = _view(config, run_inputs, stage_store, reporter)
    stages = tuple(view.stages)
    if components is not None and not view.is_whole:
        check_space(
            config,
            components.state,
            store_url=store.url,
            epochs=sum(stage.kind == "train" and not view.is_done(stage) for stage in stages),
            num_samples=data["train_data"].info.num_samples,
            notice=reporter.notice,
        )
        if not view.is_done(stages[0]):
            check_start(weights, config, components)
        before_start()
    session = Session(
        run=view,
        run_inputs=run_inputs,
        store=store,
        stage_store=stage_store,
        data=data,
        device=device,
        environment=environment,
        reporter=reporter,
        components=components,
        start=weights,
    )
    reporter.opening(opening_line(view, run_inputs, store))
    _refuse_or_tell(view, session)
    run = Run(session, record_plan(store, config, run_inputs, stages))
    # Up to here a store that does not answer means a wrong config. From here on it is taken to be
    # away for a while, and asked again.
    store.retry_with(
        RetryPolicy.of_environment(
            hurried=lambda: session.interruption.came, notice=reporter.notice
        )
    )
    return run


def _view(
    config: RunConfig, run_inputs: RunInputs, stage_store: StageStore, reporter: Reporter
) -> RunView:
    stages = tuple(list_stages(config, run_inputs))
    return RunView(config, stages, survey(stage_store, stages, notice=reporter.notice))


MAX_NAMED = 5


def _tell_of_code(known: RunSources, built: RunSources, reporter: Reporter) -> None:
    """Reports what building the targets has shown of their code, and what no key holds; once."""
    for field, source in built.code.items():
        before = known.code[field].digests
        found = [name for name in source.digests if name not in before]
        gone = [name for name in before if name not in source.digests]
        if found:
            reporter.notice(
                f"{field}: building it loaded {_named(found)}, which no import statement of "
                "its files names: now in the keys, as far as it was loaded before the start"
            )
        if gone:
            reporter.notice(
                f"{field}: building it no longer loads {_named(gone)}, which it did before: "
                "no longer in the keys"
            )
    for field, files in built.read.items():
        if files and field not in known.built:
            reporter.notice(
                f"{field}: building it read {_named(files)}, which is in no key: name it in "
                f"{field}.files, so that a change of it is seen"
            )
    for text in known.not_followed:
        reporter.notice(text)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
    return ", ".join(names[:MAX_NAMED]) + more


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
