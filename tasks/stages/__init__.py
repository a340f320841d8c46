"""What each kind of stage computes: load, call one function of `engine` or `data`, commit.

Nothing here asks whether the stage is done; `tasks.runner` does.
"""

from __future__ import annotations

from collections.abc import Callable

from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.checkpoints.end_of_epoch import load_ema, load_model, put_model
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.warm_start import load_weights
from epochal.tasks.session.session import Session
from epochal.tasks.stages.average import average, validate_average
from epochal.tasks.stages.commit import commit_stage
from epochal.tasks.stages.mine import mine
from epochal.tasks.stages.score import score
from epochal.tasks.stages.train import train
from epochal.tasks.stages.validate import commit_measured, measure


def initialise(session: Session, stage: Stage) -> StageRecord:
    """The model with its initial weights."""
    from epochal.tasks.user_code.components import build_components

    # Built anew unless nothing has touched it since it was built: the same seed, the same weights.
    if session.components is None or session.live_key is not None:
        session.components = build_components(session.config, device=session.device)
    state = session.components.state
    if session.config.start is not None:
        load_weights(session.config, session.components, sha256=session.run_inputs.start)
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
    return commit_measured(session, stage, found, measured=record)


BODIES: dict[str, Callable[[Session, Stage], StageRecord]] = {
    "initialise": initialise,
    "train": train,
    "validate": validate,
    "score": score,
    "mine": mine,
    "average": average,
    "validate_average": validate_average,
}
