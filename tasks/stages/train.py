"""The train stage: one epoch of updates, continued from its newest commit if there is one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.hashing import digest
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.stage_store.stages import Artifact, StageRecord
from epochal.engine.schedule import schedule
from epochal.engine.schedule.kinds import CustomSchedule
from epochal.tasks.checkpoints.end_of_epoch import COMPANIONS, put_checkpoint
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.device import watch_device
from epochal.tasks.planning.inputs import (
    loss_inputs,
    measuring_inputs,
    precision_inputs,
    target_inputs,
    validation_batch_size,
    with_source,
)
from epochal.tasks.planning.plateau import SECTION, factor_of, plateau_inputs
from epochal.tasks.planning.run_length import in_epochs, rate_function, updates_left, updates_of
from epochal.tasks.planning.stage import RunInputs, Stage
from epochal.tasks.session.session import EpochPart, Session
from epochal.tasks.session.stage_times import TIMES, StageTimes, checked_times
from epochal.tasks.session.watch import EpochWatch
from epochal.tasks.stages.commit import bring_state, commit_stage, number, sample_table
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
from epochal.tasks.stages.validate import VALIDATE, mid_epoch_validation

if TYPE_CHECKING:
    from epochal.data.loading.order import MicroBatchPlan
    from epochal.data.samples.table import SampleTable
    from epochal.engine.loop.epoch import EpochResult
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
        "loader": {
            "batch_size": config.loader.batch_size,
            "drop_last": config.loader.drop_last,
        },
        **_acting("sampler", config.batches.key_slice(epoch)),
        "gradients": config.gradients.key_slice(epoch),
        **precision_inputs(config),
        **({} if config.mixing is None else {"mixing": config.mixing.key_slice()}),
        **({} if config.ema is None else {"ema": config.ema.key_slice(epoch)}),
        **_batch_norm_inputs(config, epoch),
        **_mid_epoch_inputs(config, run_inputs),
        **with_source(run_inputs, "train_data", run_inputs.train_data.fingerprint),
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
    return {"validation": acting, **measuring_inputs(config, run_inputs)}


_LOADED = {
    "parent": ("model", "optimizer", "state", "ema", *COMPANIONS),
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
        f"gradient norm {shown(values['gradient_norm'])}",
        f"{values['samples']} samples",
        *([] if lowered == 1.0 else [f"rate x {shown(lowered)}"]),
    ]


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    from epochal.data.loading.loader import train_batches
    from epochal.engine.loop.epoch import Recipe, train_epoch
    from epochal.tasks.checkpoints.mid_epoch_saver import MidEpochSaver

    config, data, epoch = session.config, session.data["train_data"], stage.number
    table = sample_table(session, stage)
    micro_batches = _micro_batches(session, stage, table)
    lowered = factor_of(session.run, epoch, num_samples=data.info.num_samples)
    told = {"schedule_factor": lowered} if SECTION in stage.inputs else {}
    identity = {
        "key": stage.known_key,
        "environment_digest": digest("environment", session.environment_of(stage)),
        "consumed": dict(consumed),
        **told,
    }
    resume, times = _begin(session, stage, identity, micro_batches)
    components, norm = session.ready_components(), config.batch_norm
    state = components.state
    updates_before = state.updates_tried - (0 if resume is None else resume.updates)
    saver = MidEpochSaver(
        session.store,
        stage.known_key,
        config.checkpoint,
        identity=identity,
        times=times.until,
        beside=session.goodput.carry,
        saved=partial(_deliver_part, session, stage, updates_before),
        buffers=session.buffers,
        resumed=resume is not None,
    )
    batches = train_batches(
        data.dataset,
        micro_batches,
        sample_ids_N=data.sample_ids_N,
        weights_N=None if table is None else table.weight_by_id(data.sample_ids_N),
        workers=config.loader.workers,
        seed=config.seed,
        epoch=epoch,
        start=0 if resume is None else resume.micro_steps,
    )
    try:
        with closing(batches):  # else a stored error would keep its workers alive
            result = train_epoch(
                state,
                watch_device(
                    session.goodput,
                    batches,
                    state=state,
                    step=components.step,
                    precision=config.precision,
                ),
                Recipe(
                    components.step,
                    gradients=config.gradients,
                    precision=config.precision,
                    mixing=config.mixing,
                    rate=rate_function(config, num_samples=data.info.num_samples, lowered=lowered),
                    momentum=None if norm is None else norm.function(config.epochs),
                    frozen=config.optimizer.frozen_in,
                    validation=mid_epoch_validation(config.validation, session, saver, epoch=epoch),
                    seed=config.seed,
                ),
                epoch=epoch,
                num_updates=micro_batches.num_updates,
                updates_per_epoch=updates_of(config, epoch, num_samples=len(data.sample_ids_N))
                if _cut(session, stage) is not None
                else None,
                on_progress=EpochWatch(
                    session.reporter, session.interruption, saver, times, session.goodput
                ),
                on_phase=session.goodput.watch.switch,
                resume=resume,
            )
    finally:
        session.goodput.watch.switch("commit")
        saver.wait(notice=session.reporter.notice)
    session.goodput.trained(result.num_samples)
    artifacts = _put_artifacts(session, stage, result)
    session.stage_store.put_side_file(
        stage.known_key, TIMES, {"anchors": times.until(result.num_updates)}
    )
    norms = result.updates["gradients/norm"]
    record = commit_stage(
        session,
        stage,
        artifacts,
        {
            "samples": result.num_samples,
            "updates": result.num_updates,
            "updates_done": state.updates_tried,
            "updates_skipped": result.num_skipped,
            "clip_rate": number(result.clip_rate),
            "spikes": result.num_spikes,
            "loss": number(result.mean_loss),
            "accuracy": None if result.accuracy is None else number(result.accuracy),
            "gradient_norm": number(float(norms.mean())) if len(norms) else None,
            **told,
        },
        consumed=consumed,
    )
    saver.clear()
    # If a record of another environment was there first, the store holds another state than this.
    session.live_key = stage.known_key if record.artifacts == artifacts else None
    return record


def _micro_batches(session: Session, stage: Stage, table: SampleTable | None) -> MicroBatchPlan:
    from epochal.data.loading.batch_sampler import sampler_order, sampler_plan

    config, data = session.config, session.data["train_data"]
    ids_N = data.sample_ids_N
    order = sampler_order(
        config.batches,
        seed=config.seed,
        epoch=stage.number,
        sample_ids_N=ids_N,
        keep_N=None if table is None else table.keep_by_id(ids_N),
        labels_N=data.classes_N if config.batches.class_balanced else None,
    )
    size, accumulate = config.loader.batch_size, config.gradients.accumulated(stage.number)
    if table is not None:
        kept = int(table["keep"].sum())
        size = config.sampling.batch_size(size, kept=kept, total=len(ids_N))
    if (updates := _cut(session, stage)) is not None:
        order = order[: updates * accumulate * size]
    return sampler_plan(
        config.batches,
        order,
        batch_size=size,
        accumulate=accumulate,
        drop_last=config.loader.drop_last,
        seed=config.seed,
        epoch=stage.number,
    )


def _cut(session: Session, stage: Stage) -> int | None:
    """The updates after which `max_updates` cuts this epoch, or None for a whole one."""
    count = len(session.data["train_data"].sample_ids_N)
    return updates_left(session.config, stage.number, num_samples=count)


def _begin(
    session: Session,
    stage: Stage,
    identity: Mapping[str, Any],
    micro_batches: MicroBatchPlan,
) -> tuple[MidEpochState | None, StageTimes]:
    """Loads the state from which the epoch goes on: of its newest commit, or of its parent."""
    from epochal.tasks.checkpoints.mid_epoch_restore import checked_restore
    from epochal.tasks.checkpoints.mid_epoch_saver import BESIDE

    def fits(body: Mapping[str, Any]) -> bool:
        return all(body.get(name) == value for name, value in identity.items())

    commits = MidEpochStore(session.store, stage.known_key)
    while True:
        with commits.newest(fits=fits, notice=session.reporter.notice) as commit:
            if commit is None:
                break
            session.live_key = None
            try:
                resume = checked_restore(
                    commit,
                    session.ready_components().state,
                    micro_batches,
                    gradients=session.config.gradients,
                )
                times = StageTimes(checked_times(commit.body.get("anchors")))
            except CorruptObject as error:
                session.reporter.notice(f"{stage.label}: {error}; an older commit is used")
                commits.discard(commit.micro_steps, str(error))
                continue
            rows = len(resume.observations["sample_id"])
            session.goodput.go_on(commit.body.get(BESIDE), rows=rows)
            session.resumed_at[stage.known_key] = commit.micro_steps
            return resume, times
    state = bring_state(session, stage.parents["parent"])
    ema = session.config.ema
    if ema is not None and ema.copy_at_epoch == stage.epoch and state.ema is not None:
        state.ema.copy_to_model()
    session.live_key = None  # the live state is no stage's checkpoint until the epoch is whole
    return None, StageTimes()


def _put_artifacts(session: Session, stage: Stage, result: EpochResult) -> dict[str, Artifact]:
    from epochal.data.tables.writing import OBSERVATIONS, UPDATES, write_table
    from epochal.engine.loop.epoch import updates_table

    store, key = session.stage_store, stage.known_key
    metadata = {"stage": stage.kind, "epoch": str(stage.epoch), "key": key}
    with session.store.scratch() as scratch:

        def put(name: str, columns: Mapping[str, Any], schema: Any) -> Artifact:
            path: Path = scratch / f"{name}.parquet"
            write_table(columns, path, schema=schema, metadata=metadata)
            return store.put_artifact(key, "parquet", path)

        artifacts = put_checkpoint(store, key, session.ready_components().state, scratch)
        artifacts["observations"] = put("observations", result.observations, OBSERVATIONS)
        artifacts["updates"] = put("updates", updates_table(result), UPDATES)
    return artifacts


def _deliver_part(
    session: Session,
    stage: Stage,
    updates_before: int,
    part: MidEpochState,
    times: list[list[int]],
) -> None:
    """Sends the committed part of a running epoch to MLflow, for live curves."""
    if part.updates:
        session.deliver_part(
            EpochPart(
                key=stage.known_key,
                metrics=part.metrics,
                updates_before=updates_before,
                times=times,
            )
        )


TRAIN = StageKind(
    name="train",
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
    metrics=_metrics,
    points=_points,
    line=_line,
)
