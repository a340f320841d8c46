"""The initialise stage: the model with the weights that training begins with."""

from __future__ import annotations

from collections.abc import Mapping

from epochal.data.stage_store.records import StageRecord
from epochal.tasks.checkpoints.end_of_epoch import put_model
from epochal.tasks.checkpoints.warm_start import load_weights
from epochal.tasks.planning.inputs import target_inputs, with_source
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage
from epochal.tasks.stages.kind import TENSORS, Count, Listing, Planned, RecordValues, StageKind
from epochal.tasks.user_code.components import build_components


class _Values(RecordValues):
    parameters: Count


def _plan(listing: Listing, epoch: int | None) -> Planned:  # noqa: ARG001 - as a kind is asked
    config, run_inputs = listing.config, listing.run_inputs
    model = with_source(run_inputs, "model", target_inputs(config.model))
    inputs = {"seed": config.seed, **model}
    if config.start is not None:
        inputs["start"] = {"sha256": run_inputs.start, **config.start.key_slice()}
    return Planned(inputs)


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    # Built again if anything has changed it since: the same seed gives the same weights.
    if session.components is None or session.live_key is not None:
        session.components = build_components(session.config, device=session.device)
    state = session.components.state
    if session.start is not None:
        load_weights(
            session.start, session.config, session.components, sha256=session.run_inputs.start
        )
    with session.store.scratch() as scratch:
        artifact = put_model(session.stage_store, stage.known_key, state, scratch)
    parameters = sum(parameter.numel() for parameter in state.model.parameters())
    record = commit_stage(
        session, stage, {"model": artifact}, {"parameters": parameters}, consumed=consumed
    )
    session.live_key = stage.known_key if record.artifacts["model"] == artifact else None
    return record


def _loads(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    raise AssertionError(f"{stage.label} has no parent {role}, of {len(records)} records")


INITIALISE = StageKind(
    name="initialise",
    version=1,
    when="start",
    plan=_plan,
    values=_Values,
    artifacts={"model": TENSORS},
    loads=_loads,
    run=_run,
)
