"""A run while it is worked on: its plan, its store, its live state and what became of each stage.

Prefect's tasks are thin and exchange keys only; what they work with is found here. One process
works on one run at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import PreflightFailed, StoreUnavailable, TrainingFailed
from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.data.store.retry import RetryPolicy
from epochal.data.store.store import Store
from epochal.tasks.checkpoints.host_buffers import HostBuffers
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.early_stopping import needed_stages, stopped_after
from epochal.tasks.planning.keys import list_stages
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.reporting import Outcome, Reporter, SilentReporter
from epochal.tasks.run_data.run_data import RunData, read_run_inputs
from epochal.tasks.runs.plan import is_bitwise
from epochal.tasks.runs.run_plans import RunPlan, record_plan
from epochal.tasks.runs.survey import survey
from epochal.tasks.runs.warm_start import check_start
from epochal.tasks.session.interruption import Interruption

if TYPE_CHECKING:
    import torch

    from epochal.tasks.tracking.background import Tracker, TrackerResult
    from epochal.tasks.user_code.components import Components


@dataclass
class Session:
    """Everything that the stages of one run share.

    records: key → the record of each stage that is done.
    live_key: the stage whose checkpoint `components.state` holds; None if nobody's.
    resumed_at: key → micro-step that its stage went on from.
    """

    config: RunConfig
    store: Store
    stage_store: StageStore
    run_inputs: RunInputs
    data: Mapping[str, RunData]
    stages: tuple[Stage, ...]
    records: dict[str, StageRecord]
    plan: RunPlan
    device: torch.device
    environment: dict[str, Any]
    reporter: Reporter
    components: Components | None
    live_key: str | None = None
    tracker: Tracker = field(init=False)
    delivered: TrackerResult | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    resumed_at: dict[str, int] = field(default_factory=dict)
    interruption: Interruption = field(default_factory=Interruption)
    buffers: HostBuffers = field(default_factory=HostBuffers)

    @property
    def environment_digest(self) -> str:
        """Digest of the numerics environment, as records hold it."""
        return digest("environment", self.environment)

    @property
    def folder(self) -> Path:
        """Where the user's modules are."""
        return Path(self.config.folder)

    def stage(self, kind: str, epoch: int | None) -> Stage:
        """The stage of that kind and epoch."""
        return next(one for one in self.stages if (one.kind, one.epoch) == (kind, epoch))

    @property
    def stopped_after(self) -> int | None:
        """The epoch that early stopping ends the run with, as far as it is known, or None."""
        return stopped_after(self.config, self.stages, self.records)

    @property
    def needed(self) -> tuple[Stage, ...]:
        """The stages that belong to the run: none after `stopped_after`."""
        return needed_stages(self.config, self.stages, self.records)

    def record_of(self, stage: Stage) -> StageRecord:
        """The record of a stage that is done."""
        return self.records[stage.known_key]

    def ready_components(self) -> Components:
        """Model, optimizer and step; built at first use."""
        if self.components is None:
            from epochal.tasks.user_code.components import build_components

            self.components = build_components(self.config, device=self.device)
        return self.components

    @property
    def bitwise(self) -> bool:
        """Whether all records come from one environment and each from its parents' bytes."""
        return is_bitwise(self.needed, self.records)


_current: list[Session] = []


def current_session() -> Session:
    """The run that this process works on. Raises TrainingFailed outside `training_session`."""
    if not _current:
        raise TrainingFailed(
            "a stage was called outside its flow; call epochal.flows.train.train(config), which "
            "opens the run first"
        )
    return _current[-1]


def open_session(
    config: RunConfig,
    *,
    reporter: Reporter | None = None,
    before_start: Callable[[], None] = lambda: None,
) -> Session:
    """Reads the data, lists the stages, looks what is done and checks what is to be computed.

    before_start: the caller's own checks, called if something is to be computed.
    Nothing has started when it raises: InputError for what is wrong with config, data or store.
    """
    try:
        return _open(config, reporter or SilentReporter(), before_start)
    except StoreUnavailable as error:
        raise PreflightFailed(str(error)) from error


def _open(config: RunConfig, told: Reporter, before_start: Callable[[], None]) -> Session:
    from epochal.engine.environment import numerics_environment
    from epochal.tasks.preflight.disk_space import check_space
    from epochal.tasks.preflight.forward_pass import check_before_start
    from epochal.tasks.user_code.components import prepare_numerics

    store = open_store(config.store, folder=Path(config.folder))
    device = prepare_numerics(config)
    check_store = cache(store.preflight)  # before the first write, and once
    run_inputs, data = read_run_inputs(config, store, notice=told, before_write=check_store)
    config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
    stages = tuple(list_stages(config, run_inputs))
    stage_store = StageStore(store)
    records = survey(stage_store, stages, notice=told.notice)
    environment = numerics_environment(device)
    components = None
    if any(stage.known_key not in records for stage in needed_stages(config, stages, records)):
        check_store()
        components = check_before_start(config, data, device=device)
        check_space(
            config,
            components.state,
            store_url=store.url,
            epochs=sum(one.kind == "train" and one.known_key not in records for one in stages),
            num_samples=data["train_data"].known.num_samples,
            notice=told.notice,
        )
        if stages[0].known_key not in records:
            check_start(config, components)
        before_start()
    refuse_or_tell(config, records, environment, told)
    session = Session(
        config=config,
        store=store,
        stage_store=stage_store,
        run_inputs=run_inputs,
        data=data,
        stages=stages,
        records=records,
        plan=record_plan(store, config, run_inputs, stages),
        device=device,
        environment=environment,
        reporter=told,
        components=components,
    )
    # Until here a store that does not answer is a mistake of the config; from here on it is away.
    store.retry_with(
        RetryPolicy.of_environment(
            hurried=lambda: session.interruption.came, notice=session.reporter.notice
        )
    )
    return session


def refuse_or_tell(
    config: RunConfig,
    records: Mapping[str, StageRecord],
    environment: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Stages from another numerics environment: said, or refused where that is asked for."""
    own = digest("environment", environment)
    other = next((one for one in records.values() if one.environment_digest != own), None)
    if other is None:
        return
    names = sorted({**other.environment, **environment})
    differences = "; ".join(
        f"{name}: {other.environment.get(name)} → {environment.get(name)}"
        for name in names
        if other.environment.get(name) != environment.get(name)
    )
    text = f"stages of this run come from another numerics environment ({differences})"
    if config.reproducibility == "strict":
        raise PreflightFailed(
            f"{text}; `reproducibility: strict` refuses them: run there, use another store, or "
            "set `reproducibility: warn`"
        )
    reporter.notice(f"{text}; the result is not bitwise that of one environment")


@contextmanager
def working_on(session: Session) -> Iterator[Session]:
    """Makes `session` the current one inside the block."""
    _current.append(session)
    try:
        yield session
    finally:
        _current.remove(session)


@contextmanager
def timed() -> Iterator[list[float]]:
    """Wall seconds of the block, in the one item of the list."""
    started = time.monotonic()
    seconds = [0.0]
    try:
        yield seconds
    finally:
        seconds[0] = time.monotonic() - started
