"""What each kind of stage computes: load, call one function of `engine` or `data`, commit.

Nothing here asks whether the stage is done; `tasks.runner` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from epochal.data.stages import Artifact, StageRecord
from epochal.data.types import seed_64
from epochal.engine import schedule
from epochal.tasks.checkpoints import bring_state, load_model, put_checkpoint, put_model
from epochal.tasks.integrity import LOADED
from epochal.tasks.keys import Stage
from epochal.tasks.session import Session
from epochal.tasks.watch import EpochWatch, now_ms

if TYPE_CHECKING:
    from epochal.data.samples import SampleTable

TIMES = "times.json"


def initialise(session: Session, stage: Stage) -> StageRecord:
    """The model with its initial weights."""
    from epochal.tasks.components import build_components

    # Built anew unless nothing has touched it since it was built: the same seed, the same weights.
    if session.components is None or session.live_key is not None:
        session.components = build_components(session.config, device=session.device)
    state = session.components.state
    with session.store.scratch() as scratch:
        artifact = put_model(session.stage_store, stage.known_key, state, scratch)
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    record = _commit(session, stage, {"model": artifact}, {"parameters": parameters})
    session.live_key = stage.known_key if record.artifacts["model"] == artifact else None
    return record


def train(session: Session, stage: Stage) -> StageRecord:
    """One epoch of updates: a checkpoint, the observations and the step metrics."""
    from epochal.data.loader import train_batches
    from epochal.data.order import epoch_order, micro_batches
    from epochal.data.tables import OBSERVATIONS, UPDATES, write_table
    from epochal.engine.epoch import train_epoch, updates_table

    config, data = session.config, session.data["train_data"]
    epoch = stage.epoch
    assert epoch is not None
    components = bring_state(session, stage.parents["parent"])
    table = _sample_table(session, stage)
    order = epoch_order(
        seed=config.seed,
        epoch=epoch,
        sample_ids_N=data.sample_ids_N,
        keep_N=None if table is None else table.keep_by_id(data.sample_ids_N),
    )
    plan = micro_batches(
        order,
        batch_size=config.loader.batch_size,
        accumulate=config.gradients.accumulate,
        drop_last=config.loader.drop_last,
    )
    watch = EpochWatch(session.reporter)
    session.live_key = None  # until the epoch is whole, the live state is nobody's checkpoint
    result = train_epoch(
        components.state,
        train_batches(
            data.dataset,
            plan,
            sample_ids_N=data.sample_ids_N,
            weights_N=None if table is None else table.weight_by_id(data.sample_ids_N),
            workers=config.loader.workers,
            seed=config.seed,
            epoch=epoch,
        ),
        epoch=epoch,
        num_updates=plan.num_updates,
        step=components.step,
        gradients=config.gradients,
        rate=schedule.factor_function(config.schedule, epochs=config.epochs),
        seed=config.seed,
        on_progress=watch,
    )
    with session.store.scratch() as scratch:
        observations, updates = scratch / "observations.parquet", scratch / "updates.parquet"
        metadata = {"stage": stage.kind, "epoch": str(epoch), "key": stage.known_key}
        write_table(result.observations, observations, schema=OBSERVATIONS, metadata=metadata)
        write_table(updates_table(result), updates, schema=UPDATES, metadata=metadata)
        artifacts = put_checkpoint(session.stage_store, stage.known_key, components.state, scratch)
        artifacts["observations"] = session.stage_store.put_artifact(
            stage.known_key, "parquet", observations
        )
        artifacts["updates"] = session.stage_store.put_artifact(stage.known_key, "parquet", updates)
    session.stage_store.put_side_file(
        stage.known_key, TIMES, {"anchors": watch.anchors.finish(result.num_updates)}
    )
    norms = result.updates["gradients/norm"]
    record = _commit(
        session,
        stage,
        artifacts,
        {
            "samples": result.num_samples,
            "updates": result.num_updates,
            "updates_done": components.state.updates_done,
            "loss": _number(result.mean_loss),
            "accuracy": None if result.accuracy is None else _number(result.accuracy),
            "gradient_norm": _number(float(norms.mean())) if len(norms) else None,
        },
    )
    # Where another environment's record won, the live state is not what the store now holds.
    session.live_key = stage.known_key if record.artifacts == artifacts else None
    return record


def validate(session: Session, stage: Stage) -> StageRecord:
    """The metrics of one checkpoint over the validation data."""
    from epochal.data.loader import validation_batches
    from epochal.engine.validate import validate_epoch

    config, data = session.config, session.data["validation_data"]
    parent = stage.parents["parent"]
    components = session.ready_components()
    if session.live_key != parent.known_key:
        session.live_key = None
        load_model(session.stage_store, session.record_of(parent), components)
    result = validate_epoch(
        components.state.model,
        validation_batches(
            data.dataset,
            batch_size=config.loader.validation_batch_size or config.loader.batch_size,
            sample_ids_N=data.sample_ids_N,
            workers=config.loader.workers,
        ),
        step=components.step,
        metrics=components.metrics,
        seed=seed_64(config.seed, "validate", stage.epoch or 0),
    )
    _put_moment(session, stage)
    return _commit(
        session,
        stage,
        {},
        {
            "samples": result.num_samples,
            "updates_done": session.record_of(parent).values["updates_done"],
            "metrics": {name: _number(value) for name, value in result.values.items()},
        },
    )


def mine(session: Session, stage: Stage) -> StageRecord:
    """The sample table: scores of what was seen so far, and who is kept in the next epoch."""
    from epochal.data.policies import PlanContext, plan_epoch
    from epochal.data.samples import read_samples, update, write_samples
    from epochal.data.tables import OBSERVATIONS, read_table

    config, data = session.config, session.data["train_data"]
    epoch = stage.epoch
    assert epoch is not None
    trained = session.record_of(stage.parents["observations"])
    with session.stage_store.fetch_artifact(trained, "observations") as path:
        observations = read_table(path, schema=OBSERVATIONS)
    previous: SampleTable | None = None
    if "samples" in stage.parents:
        mined = session.record_of(stage.parents["samples"])
        with session.stage_store.fetch_artifact(mined, "samples") as path:
            previous = read_samples(path)
    table = update(
        previous,
        observations.columns,
        epoch=epoch,
        sample_ids_N=data.sample_ids_N,
        labels_N=data.labels_N,
        confidence=config.sampling.confidence,
    )
    full = config.sampling.is_full(epoch + 1, epochs=config.epochs)
    context = PlanContext(epoch=epoch + 1, full=full, seed=config.seed)
    planned = plan_epoch(table, context, config.sampling)
    table = table.with_plan(keep_N=planned.keep_N, weight_N=planned.weight_N)
    with session.store.scratch() as scratch:
        path = scratch / "samples.parquet"
        metadata = {
            "stage": stage.kind,
            "epoch": str(epoch),
            "key": stage.known_key,
            "policy": config.sampling.policy,
            "seed": str(config.seed),
            "score_source": "train",
        }
        write_samples(table, path, metadata=metadata)
        artifact = session.stage_store.put_artifact(stage.known_key, "parquet", path)
    _put_moment(session, stage)
    kept, total = int(planned.keep_N.sum()), len(planned.keep_N)
    return _commit(
        session,
        stage,
        {"samples": artifact},
        {
            "kept": kept,
            "samples": total,
            "kept_fraction": kept / total,
            "full": full,
            "updates_done": trained.values["updates_done"],
        },
    )


BODIES: dict[str, Callable[[Session, Stage], StageRecord]] = {
    "initialise": initialise,
    "train": train,
    "validate": validate,
    "mine": mine,
}


def _sample_table(session: Session, stage: Stage) -> SampleTable | None:
    from epochal.data.samples import read_samples

    if "samples" not in stage.parents:
        return None
    record = session.record_of(stage.parents["samples"])
    with session.stage_store.fetch_artifact(record, "samples") as path:
        return read_samples(path)


def _commit(
    session: Session, stage: Stage, artifacts: dict[str, Artifact], values: dict[str, Any]
) -> StageRecord:
    consumed = {
        f"{role}/{name}": artifact.sha256
        for role, parent in stage.parents.items()
        for name, artifact in session.record_of(parent).artifacts.items()
        if name in LOADED[(stage.kind, role)]
    }
    inputs: dict[str, Any] = {
        **stage.inputs,
        "parents": {role: parent.known_key for role, parent in stage.parents.items()},
    }
    return session.stage_store.commit(
        StageRecord(
            stage=stage.kind,
            epoch=stage.epoch,
            key=stage.known_key,
            inputs=inputs,
            environment=session.environment,
            environment_digest=session.environment_digest,
            consumed=consumed,
            artifacts=artifacts,
            values=values,
        )
    )


def _put_moment(session: Session, stage: Stage) -> None:
    session.stage_store.put_side_file(stage.known_key, TIMES, {"anchors": [[0, now_ms()]]})


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
