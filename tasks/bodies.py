"""What each kind of stage computes: load, call one function of `engine` or `data`, commit.

Nothing here asks whether the stage is done; `tasks.runner` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epochal.data.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.average_stage import average, validate_average
from epochal.tasks.checkpoints import load_ema, load_model, put_model
from epochal.tasks.commit import commit_stage, number, put_moment
from epochal.tasks.keys import Stage
from epochal.tasks.session import Session
from epochal.tasks.start import load_weights
from epochal.tasks.train_stage import train
from epochal.tasks.validation import measure

if TYPE_CHECKING:
    from epochal.data.samples import SampleTable


def initialise(session: Session, stage: Stage) -> StageRecord:
    """The model with its initial weights."""
    from epochal.tasks.components import build_components

    # Built anew unless nothing has touched it since it was built: the same seed, the same weights.
    if session.components is None or session.live_key is not None:
        session.components = build_components(session.config, device=session.device)
    state = session.components.state
    if session.config.start is not None:
        load_weights(session.config, session.components, sha256=session.facts.start)
    with session.store.scratch() as scratch:
        artifact = put_model(session.stage_store, stage.known_key, state, scratch)
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    record = commit_stage(session, stage, {"model": artifact}, {"parameters": parameters})
    session.live_key = stage.known_key if record.artifacts["model"] == artifact else None
    return record


def validate(session: Session, stage: Stage) -> StageRecord:
    """The metrics of one checkpoint over the validation data; those of its average as well."""
    parent = stage.parents["parent"]
    components = session.ready_components()
    record, ema = session.record_of(parent), components.state.ema
    if session.live_key != parent.known_key:
        session.live_key = None
        load_model(session.stage_store, record, components)
        if ema is not None:
            load_ema(session.stage_store, record, ema)
    found = measure(
        session,
        seed=seed_64(session.config.seed, "validate", stage.number),
        on_batch=session.interruption.obey,
    )
    put_moment(session, stage)
    return commit_stage(
        session,
        stage,
        {},
        {
            "samples": found.num_samples,
            "updates_done": record.values["updates_done"],
            "metrics": {name: number(value) for name, value in found.values.items()},
            **({"matrices": dict(found.matrices)} if found.matrices else {}),
        },
    )


def mine(session: Session, stage: Stage) -> StageRecord:
    """The sample table: scores of what was seen so far, and who is kept in the next epoch."""
    from epochal.data.policies import PlanContext, plan_epoch
    from epochal.data.samples import read_samples, update, write_samples
    from epochal.data.tables import OBSERVATIONS, read_table

    config, data = session.config, session.data["train_data"]
    epoch = stage.number
    trained = session.record_of(stage.parents["observations"])
    with session.stage_store.fetch_artifact(trained, "observations") as path:
        observations = read_table(path, schema=OBSERVATIONS, max_rows=len(data.sample_ids_N))
    previous: SampleTable | None = None
    if "samples" in stage.parents:
        mined = session.record_of(stage.parents["samples"])
        with session.stage_store.fetch_artifact(mined, "samples") as path:
            previous = read_samples(path, max_rows=len(data.sample_ids_N))
    table = update(
        previous,
        observations.columns,
        epoch=epoch,
        sample_ids_N=data.sample_ids_N,
        labels_N=None,  # what was not observed stays unknown: reading labels may be too slow
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
    put_moment(session, stage)
    kept, total = int(planned.keep_N.sum()), len(planned.keep_N)
    return commit_stage(
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
    "average": average,
    "validate_average": validate_average,
}
