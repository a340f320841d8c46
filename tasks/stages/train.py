"""The train stage: one epoch of updates, from its newest commit on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.stage_store.stages import Artifact, StageRecord
from epochal.tasks.checkpoints.end_of_epoch import put_checkpoint
from epochal.tasks.checkpoints.mid_epoch_restore import checked_restore
from epochal.tasks.checkpoints.mid_epoch_saver import MidEpochSaver
from epochal.tasks.planning.run_length import rate_function, updates_left, updates_of
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_schema import number
from epochal.tasks.runs.stage_times import TIMES, StageTimes, checked_times
from epochal.tasks.session.session import Session
from epochal.tasks.session.watch import EpochWatch
from epochal.tasks.stages.commit import bring_state, commit_stage, consumed, sample_table
from epochal.tasks.stages.validate import mid_epoch_validation
from epochal.tasks.tracking.exporter import EpochPart

if TYPE_CHECKING:
    from epochal.data.loading.order import MicroBatchPlan
    from epochal.data.samples.table import SampleTable
    from epochal.engine.loop.epoch import EpochResult
    from epochal.engine.loop.progress import MidEpochState


def train(session: Session, stage: Stage) -> StageRecord:
    """One epoch of updates: a checkpoint, the observations and the step metrics."""
    from epochal.data.loading.loader import train_batches
    from epochal.engine.loop.epoch import train_epoch

    config, data, epoch = session.config, session.data["train_data"], stage.number
    table = sample_table(session, stage)
    plan = _plan(session, stage, table)
    identity = {
        "key": stage.known_key,
        "environment_digest": session.environment_digest,
        "consumed": consumed(session, stage),
    }
    resume, times = _begin(session, stage, identity, plan)
    components, norm = session.ready_components(), config.batch_norm
    state = components.state
    updates_before = state.updates_tried - (0 if resume is None else resume.updates)
    saver = MidEpochSaver(
        session.store,
        stage.known_key,
        config.checkpoint,
        identity=identity,
        times=times.until,
        saved=partial(_deliver_part, session, stage, updates_before),
        buffers=session.buffers,
        resumed=resume is not None,
    )
    batches = train_batches(
        data.dataset,
        plan,
        sample_ids_N=data.sample_ids_N,
        weights_N=None if table is None else table.weight_by_id(data.sample_ids_N),
        workers=config.loader.workers,
        seed=config.seed,
        epoch=epoch,
        start=0 if resume is None else resume.micro_steps,
    )
    try:
        with closing(batches):  # an error that is kept would keep its processes
            result = train_epoch(
                state,
                batches,
                epoch=epoch,
                num_updates=plan.num_updates,
                step=components.step,
                gradients=config.gradients,
                rate=rate_function(config, num_samples=data.known.num_samples),
                seed=config.seed,
                precision=config.precision,
                mixing=config.mixing,
                validations=mid_epoch_validation(config.validation, session, saver, epoch=epoch),
                updates_per_epoch=updates_of(config, epoch, num_samples=len(data.sample_ids_N))
                if _cut(session, stage) is not None
                else None,
                on_progress=EpochWatch(session.reporter, session.interruption, saver, times),
                resume=resume,
                frozen=config.optimizer.frozen_in(epoch),
                momentum=None if norm is None else norm.function(config.epochs),
            )
    finally:
        saver.wait()
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
        },
    )
    saver.clear()
    # Where another environment's record won, the live state is not what the store now holds.
    session.live_key = stage.known_key if record.artifacts == artifacts else None
    return record


def _plan(session: Session, stage: Stage, table: SampleTable | None) -> MicroBatchPlan:
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
    session: Session, stage: Stage, identity: Mapping[str, Any], plan: MicroBatchPlan
) -> tuple[MidEpochState | None, StageTimes]:
    """Brings the live state to where the epoch goes on: its newest commit, or its parent."""

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
                    plan,
                    gradients=session.config.gradients,
                )
                times = StageTimes(checked_times(commit.body.get("anchors")))
            except CorruptObject as error:
                session.reporter.notice(f"{stage.label}: {error}; an older commit is used")
                commits.discard(commit.micro_steps, str(error))
                continue
            session.resumed_at[stage.known_key] = commit.micro_steps
            return resume, times
    state = bring_state(session, stage.parents["parent"]).state
    ema = session.config.ema
    if ema is not None and ema.copy_at_epoch == stage.epoch and state.ema is not None:
        state.ema.copy_to_model()
    session.live_key = None  # until the epoch is whole, the live state is nobody's checkpoint
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
    """Live curves of a long epoch: what is committed of it goes to MLflow."""
    if part.updates:
        session.tracker.deliver_part(
            EpochPart(
                key=stage.known_key,
                metrics=part.metrics,
                updates_before=updates_before,
                times=times,
            )
        )
