"""From a config to a run that can be worked on, and what is checked before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from epochal.data.errors import (
    PreflightFailed,
    StoreUnavailable,
    TargetError,
    TrainingFailed,
    passes_through,
)
from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.data.store.retry import RetryPolicy
from epochal.data.traces import in_one_line, users_line
from epochal.tasks.config.load import refuse_secrets
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.preflight.disk_space import check_space
from epochal.tasks.preflight.forward_pass import check_before_start
from epochal.tasks.reporting import Reporter, SilentReporter
from epochal.tasks.run_data.run_data import read_run_inputs
from epochal.tasks.running.run import Run
from epochal.tasks.runs.run_plans import record_plan
from epochal.tasks.runs.survey import survey
from epochal.tasks.runs.warm_start import check_start, find_weights
from epochal.tasks.session.session import Session
from epochal.tasks.stages.registry import list_stages
from epochal.tasks.user_code.components import prepare_numerics
from epochal.tasks.user_code.failures import raised_by_users_code


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
    run_inputs, data = read_run_inputs(config, store, notice=reporter, before_write=check_store)
    config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
    stages = tuple(list_stages(config, run_inputs))
    stage_store = StageStore(store)
    view = RunView(config, stages, survey(stage_store, stages, notice=reporter.notice))
    environment = numerics_environment(device)
    components, weights = None, find_weights(config)
    if not view.is_whole:
        check_store()
        components = check_before_start(config, data, device=device)
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
    _refuse_or_tell(view, environment, reporter)
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
    run = Run(session, record_plan(store, config, run_inputs, stages))
    # Up to here a store that does not answer means a wrong config. From here on it is taken to be
    # away for a while, and asked again.
    store.retry_with(
        RetryPolicy.of_environment(
            hurried=lambda: session.interruption.came, notice=reporter.notice
        )
    )
    return run


def _refuse_or_tell(view: RunView, environment: Mapping[str, Any], reporter: Reporter) -> None:
    """Reports stages from another numerics environment, or refuses them if the config says so."""
    own = digest("environment", environment)
    records = view.records.values()
    other = next((record for record in records if record.environment_digest != own), None)
    if other is None:
        return
    names = sorted({**other.environment, **environment})
    differences = "; ".join(
        f"{name}: {other.environment.get(name)} → {environment.get(name)}"
        for name in names
        if other.environment.get(name) != environment.get(name)
    )
    text = f"stages of this run come from another numerics environment ({differences})"
    if view.config.reproducibility == "strict":
        raise PreflightFailed(
            f"{text}; `reproducibility: strict` refuses them: run there, use another store, or "
            "set `reproducibility: warn`"
        )
    reporter.notice(f"{text}; the result is not bitwise that of one environment")
