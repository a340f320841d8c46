"""The score stage: what the model of an epoch says of each sample, in a pass of its own."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.planning.scoring import SCORES, SCORING_DATA, scored_artifacts
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.stage_schema import number
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, put_moment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def score(session: Session, stage: Stage) -> StageRecord:
    """The table of scores of one checkpoint, of all samples; a pass that is broken is made anew."""
    from epochal.data.tables.writing import OBSERVATIONS, write_table

    trained = session.record_of(stage.parents["parent"])
    columns = _scored(session, stage)
    losses_N, correct_N = columns["loss"], columns["correct"][columns["label"] >= 0]
    with session.store.scratch() as scratch:
        path = scratch / "scores.parquet"
        metadata = {
            "stage": stage.kind,
            "epoch": str(stage.epoch),
            "key": stage.known_key,
            "score_source": "eval",
            "weights": stage.inputs["sampling.scoring"]["weights"],
        }
        write_table(columns, path, schema=OBSERVATIONS, metadata=metadata)
        artifact = session.stage_store.put_artifact(stage.known_key, "parquet", path)
    put_moment(session, stage)
    return commit_stage(
        session,
        stage,
        {SCORES: artifact},
        {
            "samples": len(losses_N),
            "extra_forwards": len(losses_N),
            "loss": number(float(losses_N.astype("float64").mean())),
            "accuracy": number(float(correct_N.mean())) if len(correct_N) else None,
            "updates_done": trained.values["updates_done"],
        },
    )


def _scored(session: Session, stage: Stage) -> dict[str, npt.NDArray[Any]]:
    from epochal.data.loading.loader import validation_batches
    from epochal.engine.loop.evaluate import score_samples
    from epochal.tasks.checkpoints.end_of_epoch import load_ema, load_model

    config, parent = session.config, stage.parents["parent"]
    data = session.data.get(SCORING_DATA, session.data["train_data"])
    components, average = session.ready_components(), scored_artifacts(stage)[1:]
    state = components.state
    if session.live_key != parent.known_key:
        session.live_key = None
        record = session.record_of(parent)
        load_model(session.stage_store, record, components)
        if average and state.ema is not None:
            load_ema(session.stage_store, record, state.ema)
    ids_N: npt.NDArray[np.int64] = data.sample_ids_N
    batches = validation_batches(
        data.dataset,
        batch_size=config.loader.validation_batch_size or config.loader.batch_size,
        sample_ids_N=ids_N,
        workers=config.loader.workers,
    )
    with ExitStack() as stack:
        stack.enter_context(closing(batches))  # an error that is kept would keep its processes
        if average and state.ema is not None:
            stack.enter_context(state.ema.applied())
        return score_samples(
            state.model,
            batches,
            step=components.step,
            seed=seed_64(config.seed, "score", stage.number),
            precision=config.precision,
            forward=state.forward,
            on_batch=session.interruption.obey,
        )
