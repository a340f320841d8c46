"""The train stage: one epoch of updates, continued from its newest commit if there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.stage_store.mid_epoch import MidEpochCommit, MidEpochStore
from epochal.data.stage_store.stages import Artifact, StageRecord
from epochal.engine.schedule import schedule
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.tasks.checkpoints.commit_writer import CommitWriter, EpochCommit
from epochal.tasks.checkpoints.end_of_epoch import CHECKPOINT, checkpoint_parts
from epochal.tasks.computing.saver import BESIDE, MidEpochSaver
from epochal.tasks.computing.stage_times import TIMES, StageTimes, checked_times
from epochal.tasks.computing.stragglers import RankClock
from epochal.tasks.computing.watch import EpochWatch
from epochal.tasks.computing.work import Computed, Order, Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.device import watch_device
from epochal.tasks.planning.inputs import (
    augment_inputs,
    collate_inputs,
    loss_inputs,
    measuring_inputs,
    precision_inputs,
    target_inputs,
    transform_inputs,
    validation_batch_size,
    with_source,
)
from epochal.tasks.planning.plateau import SECTION, factor_of, plateau_inputs
from epochal.tasks.planning.run_length import in_epochs, updates_left
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.session.session import EpochPart, Session
from epochal.tasks.stages.commit import (
    bring_state,
    commit_stage,
    computed,
    number,
    put_images,
    sample_table,
)
from epochal.tasks.stages.kind import (
    DOCUMENT,
    TABLE,
    TENSORS,
    Count,
    Listing,
    Number,
    Planned,
    RecordValues,
    Share,
    StageKind,
    shown,
)
from epochal.tasks.stages.training_epoch import (
    begin_epoch,
    epoch_batches,
    epoch_plan,
    epoch_recipe,
    updates_for_rate,
)
from epochal.tasks.stages.validate import VALIDATE, mid_epoch_validation
from epochal.tasks.trainer.trainer import Received

if TYPE_CHECKING:
    from epochal.data.loading.order import MicroBatchPlan
    from epochal.data.samples.table import SampleTable
    from epochal.engine.loop.progress import MidEpochState


class _Values(RecordValues):
    samples: Count
    updates: Count
    updates_done: Count
    loss: Number | None
    accuracy: Number | None
    gradient_norm: Number | None
    schedule_factor: Share = 1.0


def _plan(listing: Listing, epoch: int | None) -> Planned:
    assert epoch is not None
    config, run_inputs = listing.config, listing.run_inputs
    inputs = {
        "seed": config.seed,
        **loss_inputs(config, run_inputs),
        **_optimizer_inputs(config, run_inputs, epoch),
        **_schedule_inputs(config, run_inputs, epoch),
        **plateau_inputs(config, run_inputs, epoch, version=VALIDATE.version),
        "loader": config.loader.key_slice(),
        **collate_inputs(config, run_inputs),
        **_acting("sampler", config.batches.key_slice(epoch)),
        "gradients": config.gradients.key_slice(epoch),
        **precision_inputs(config),
        **augment_inputs(config, "train"),
        **({} if config.mixing is None else {"mixing": config.mixing.key_slice()}),
        **({} if config.ema is None else {"ema": config.ema.key_slice(epoch)}),
        **_batch_norm_inputs(config, epoch),
        **_mid_epoch_inputs(config, run_inputs),
        **with_source(run_inputs, "train_data", run_inputs.train_data.fingerprint),
        **transform_inputs("train_data", config.train_data),
    }
    left = updates_left(config, epoch, num_samples=run_inputs.train_data.num_samples)
    if left is not None:
        inputs["max_updates"] = left
    elif config.max_updates is not None and run_inputs.train_data.num_samples is None:
        inputs["max_updates"] = None  # not yet known which epoch it cuts
    parents = {"parent": listing.checkpoint}
    table = listing.newest("mine")
    if table is not None:
        parents["samples"] = table
        rule, phase = config.sampling.batch_rule, config.sampling.phase(epoch, epochs=config.epochs)
        if rule != "fixed" and not (phase.full and phase.noise is None):
            inputs["sampling.batch"] = rule
    return Planned(inputs, parents)


def _acting(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: section} if section else {}


def _optimizer_inputs(config: RunConfig, run_inputs: RunInputs, epoch: int) -> dict[str, Any]:
    optimizer = config.optimizer
    acting = {**target_inputs(optimizer), **optimizer.key_slice()}
    frozen = optimizer.frozen_in(epoch)
    return {
        **with_source(run_inputs, "optimizer", acting),
        **({"optimizer.frozen": list(frozen)} if frozen else {}),
    }


def _schedule_inputs(config: RunConfig, run_inputs: RunInputs, epoch: int) -> dict[str, Any]:
    by_epoch = in_epochs(config, run_inputs.train_data.num_samples)
    if by_epoch is None or (isinstance(by_epoch, CustomSchedule) and not run_inputs.schedule):
        return {"schedule": None}  # not yet known how many updates an epoch has
    if isinstance(by_epoch, CustomSchedule):
        acting = {**target_inputs(by_epoch), "samples": run_inputs.schedule[epoch]}
        return with_source(run_inputs, "schedule", acting)
    return {"schedule": schedule.segments(by_epoch, epoch, epochs=config.epochs)}


def _batch_norm_inputs(config: RunConfig, epoch: int) -> dict[str, Any]:
    if config.batch_norm is None:
        return {}
    return _acting("batch_norm", config.batch_norm.key_slice(epoch, epochs=config.epochs))


def _mid_epoch_inputs(config: RunConfig, run_inputs: RunInputs) -> dict[str, Any]:
    acting = config.validation.key_slice()
    if not acting:
        return {}
    acting["batch_size"] = validation_batch_size(config)
    return {
        "validation": acting,
        **augment_inputs(config, "validation"),
        **measuring_inputs(config, run_inputs),
    }


_LOADED = {
    "parent": CHECKPOINT,
    "samples": ("samples",),
}
"""Role of a parent → what is loaded of it."""


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    has_classes = values["accuracy"] is not None
    accuracy = {"train/accuracy": values["accuracy"]} if has_classes else {}
    return {"train/loss": values["loss"], **accuracy}


_POINTS = {
    "loss": "train/epoch_loss",
    "accuracy": "train/epoch_accuracy",
    "clip_rate": "gradients/clip_rate",
    "updates_skipped": "gradients/skipped_in_epoch",
    "spikes": "gradients/spikes",
}


def _points(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {point: values.get(name) for name, point in _POINTS.items()}


def _line(stage: Stage, record: StageRecord) -> list[str]:  # noqa: ARG001 - as a kind is asked
    values = record.values
    lowered = values.get("schedule_factor", 1.0)
    return [
        f"loss {shown(values['loss'])}",
        f"norm {shown(values['gradient_norm'])}",
        f"{values['samples']} samples",
        *([] if lowered == 1.0 else [f"rate x {shown(lowered)}"]),
    ]


def _compute(work: Work, order: Order) -> Computed:
    from epochal.data.loading.readers import MEASURED_ROWS
    from epochal.engine.loop.epoch import train_epoch

    config, data, epoch = work.config, work.data["train_data"], order.number
    table = sample_table(work, order)
    micro_batches = _micro_batches(work, order, table)
    resume, times = _begin(work, order, micro_batches)
    components = work.ready_components()
    state = components.state
    updates_before = state.updates_tried - (0 if resume is None else resume.updates)
    saver = MidEpochSaver(
        work.link,
        config.checkpoint,
        times=times.until,
        updates_before=updates_before,
        beside=work.goodput.carry,
        whole_updates=config.gradients.shards > 1,
    )
    start = 0 if resume is None else resume.micro_steps
    first = micro_batches.rows_after(start)
    rows_K = micro_batches.order_K[first : first + MEASURED_ROWS]
    batches = epoch_batches(
        work,
        micro_batches,
        table,
        epoch=epoch,
        start=start,
        readers=work.readers("train_data", batch_size=config.loader.batch_size, rows_K=rows_K),
    )
    validation = mid_epoch_validation(config.validation, work, saver.now, epoch=epoch)
    clock = RankClock(work.goodput.watch.switch)
    with closing(batches):  # else a stored error would keep its workers alive
        result = train_epoch(
            state,
            watch_device(
                work.goodput, batches, state=state, step=components.step, precision=config.precision
            ),
            epoch_recipe(work, lowered=order.given["lowered"], validation=validation),
            epoch=epoch,
            num_updates=micro_batches.num_updates,
            updates_per_epoch=updates_for_rate(config, data, epoch),
            on_progress=EpochWatch(work.link, saver, times, work.goodput),
            on_phase=clock,
            resume=resume,
            group=work.group,
        )
    work.goodput.watch.switch("commit")
    work.goodput.trained(result.num_samples)
    clock.tell(work, samples=result.own_samples)
    norms = result.updates["gradients/norm"]
    tensors, documents = checkpoint_parts(state)
    return Computed(
        values={
            "samples": result.num_samples,
            "updates": result.num_updates,
            "updates_done": state.updates_tried,
            "updates_skipped": result.num_skipped,
            "clip_rate": number(result.clip_rate),
            "spikes": result.num_spikes,
            "loss": number(result.mean_loss),
            "accuracy": None if result.accuracy is None else number(result.accuracy),
            "gradient_norm": number(float(norms.mean())) if len(norms) else None,
        },
        tensors=tensors,
        documents=documents,
        columns={"observations": result.observations, "updates": result.updates},
        side={TIMES: {"anchors": times.until(result.num_updates)}},
        facts={
            "first_update": result.first_update,
            "resumed_at": None if resume is None else resume.micro_steps,
        },
    )


def _micro_batches(work: Work, order: Order, table: SampleTable | None) -> MicroBatchPlan:
    return epoch_plan(work.config, work.data["train_data"], epoch=order.number, table=table)


def _begin(
    work: Work, order: Order, micro_batches: MicroBatchPlan
) -> tuple[MidEpochState | None, StageTimes]:
    """Loads the state from which the epoch goes on: of its newest commit, or of its parent."""
    from epochal.tasks.checkpoints.mid_epoch_restore import checked_restore

    while (found := work.asked("newest_commit")) is not None:
        tensors = Path(work.local_file(found["path"]))
        commit = MidEpochCommit(found["micro_steps"], found["body"], tensors)
        work.touched = True
        try:
            resume = checked_restore(
                commit,
                work.ready_components().state,
                micro_batches,
                gradients=work.config.gradients,
            )
            times = StageTimes(checked_times(commit.body.get("anchors")))
        except CorruptObject as error:
            work.asked("discard_commit", micro_steps=commit.micro_steps, reason=str(error))
            continue
        work.link.report(
            "resumed",
            epoch=order.number,
            update=resume.updates,
            num_updates=micro_batches.num_updates,
        )
        rows = len(resume.observations["sample_id"])
        work.goodput.go_on(commit.body.get(BESIDE), rows=rows)
        return resume, times
    state = bring_state(work, order)
    work.touched = True
    begin_epoch(work.config, state, order.epoch)
    return None, StageTimes()


class _Commits:
    """The commits of earlier tries at a stage, as the trainer asks for them."""

    def __init__(self, session: Session, stage: Stage, identity: Mapping[str, Any]) -> None:
        self._session = session
        self._label = stage.label
        self._identity = identity
        self._commits = MidEpochStore(session.store, stage.known_key)
        self._open = ExitStack()
        self._closing = threading.Lock()

    @property
    def answers(self) -> dict[str, Callable[..., Any]]:
        """For `_begin`."""
        return {"newest_commit": self._newest, "discard_commit": self._discard}

    def close(self) -> None:
        """The trainer has read what it wanted. From any thread, and more than once."""
        with self._closing:
            self._open.close()

    def _newest(self) -> dict[str, Any] | None:
        self.close()
        newest = self._commits.newest(fits=self._fits, notice=self._session.reporter.notice)
        commit = self._open.enter_context(newest)
        if commit is None:
            return None
        return {
            "micro_steps": commit.micro_steps,
            "body": dict(commit.body),
            "path": str(commit.tensors),
        }

    def _discard(self, micro_steps: int, reason: str) -> None:
        self.close()
        self._session.reporter.notice(f"{self._label}: {reason}; an older commit is used")
        self._commits.discard(micro_steps, reason)

    def _fits(self, body: Mapping[str, Any]) -> bool:
        return all(body.get(name) == value for name, value in self._identity.items())


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    train_data = session.data["train_data"]
    lowered = factor_of(session.run, stage.number, num_samples=train_data.info.num_samples)
    told = {"schedule_factor": lowered} if SECTION in stage.inputs else {}
    identity = {
        "key": stage.known_key,
        "environment_digest": digest("environment", session.environment_of(stage)),
        "consumed": dict(consumed),
        **told,
    }
    commits = _Commits(session, stage, identity)
    writer = CommitWriter(
        session.store,
        stage.known_key,
        identity,
        saved=partial(_saved, session, stage, commits),
    )
    with (
        closing(commits),
        computed(
            session,
            stage,
            *(role for role in ("parent", "samples") if role in stage.parents),
            given={"lowered": lowered},
            answers=commits.answers,
            writer=writer,
        ) as received,
    ):
        resumed_at = received.facts["resumed_at"]
        if resumed_at is not None:
            session.resumed_at[stage.known_key] = resumed_at
        artifacts = _put(session, stage, received)
        for name, body in received.side.items():
            session.stage_store.put_side_file(stage.known_key, name, body)
        record = commit_stage(
            session, stage, artifacts, {**received.values, **told}, consumed=consumed
        )
    writer.resumed = resumed_at is not None
    writer.clear(notice=session.reporter.notice, every_s=session.config.checkpoint.every_seconds)
    # If a record of another environment was there first, the store holds another state than this.
    session.live_key = stage.known_key if record.artifacts == artifacts else None
    return record


def _put(session: Session, stage: Stage, received: Received) -> dict[str, Artifact]:
    from epochal.data.tables.writing import OBSERVATIONS, UPDATES, write_table
    from epochal.engine.loop.updates_table import in_long_form

    store, key = session.stage_store, stage.known_key
    metadata = {"stage": stage.kind, "epoch": str(stage.epoch), "key": key}
    updates = in_long_form(received.columns["updates"], first_update=received.facts["first_update"])
    with session.store.scratch() as scratch:
        artifacts = put_images(session, stage, received, scratch)
        for name, columns, schema in (
            ("observations", received.columns["observations"], OBSERVATIONS),
            ("updates", updates, UPDATES),
        ):
            path: Path = scratch / f"{name}.parquet"
            write_table(columns, path, schema=schema, metadata=metadata)
            artifacts[name] = store.put_artifact(key, "parquet", path)
    return artifacts


def _saved(session: Session, stage: Stage, commits: _Commits, commit: EpochCommit) -> None:
    commits.close()  # who commits has begun: what it went on from may go from the disk
    _deliver_part(session, stage, commit)


def _deliver_part(session: Session, stage: Stage, commit: EpochCommit) -> None:
    """Sends the committed part of a running epoch to MLflow, for live curves."""
    if commit.updates:
        session.deliver_part(
            EpochPart(
                key=stage.known_key,
                metrics=commit.metrics,
                updates_before=commit.updates_before,
                times=commit.times,
            )
        )


TRAIN = StageKind(
    name="train",
    shared=True,
    version=3,
    when="epoch",
    plan=_plan,
    values=_Values,
    artifacts={
        "model": TENSORS,
        "optimizer": TENSORS,
        "state": DOCUMENT,
        "observations": TABLE,
        "updates": TABLE,
    },
    loads=lambda stage, role, records: _LOADED[role],  # noqa: ARG005 - as a kind is asked
    run=_run,
    compute=_compute,
    metrics=_metrics,
    points=_points,
    line=_line,
)
