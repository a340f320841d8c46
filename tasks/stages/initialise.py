"""The initialise stage: the model with the weights that training begins with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from epochal.data.stage_store.records import StageRecord
from epochal.tasks.checkpoints.end_of_epoch import checkpoint_parts
from epochal.tasks.checkpoints.warm_start import load_weights, opened_weights
from epochal.tasks.computing.work import Computed, Order, Work
from epochal.tasks.planning.inputs import target_inputs, with_source
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, computed, put_images
from epochal.tasks.stages.kind import TENSORS, Count, Listing, Planned, RecordValues, StageKind


class _Values(RecordValues):
    parameters: Count


def _plan(listing: Listing, epoch: int | None) -> Planned:  # noqa: ARG001 - as a kind is asked
    config, run_inputs = listing.config, listing.run_inputs
    model = with_source(run_inputs, "model", target_inputs(config.model))
    inputs = {"seed": config.seed, **model}
    if config.start is not None:
        inputs["start"] = {"sha256": run_inputs.start, **config.start.key_slice()}
    return Planned(inputs)


def _compute(work: Work, order: Order) -> Computed:
    # Built again if anything has changed it since: the same seed gives the same weights.
    if work.touched:
        work.components = None
    components = work.ready_components()
    work.touched = True
    if order.given["what"] is not None:
        path = Path(work.link.ask("start_weights"))
        load_weights(path, order.given["what"], work.config, components)
    model = components.state.model
    return Computed(
        values={"parameters": sum(parameter.numel() for parameter in model.parameters())},
        tensors={"model": checkpoint_parts(components.state)[0]["model"]},
    )


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    start, sha256 = session.start, session.run_inputs.start
    with ExitStack() as stack:

        def start_weights() -> str:
            assert start is not None
            return str(stack.enter_context(opened_weights(start, sha256=sha256)))

        received = stack.enter_context(
            computed(
                session,
                stage,
                given={"what": None if start is None else start.what},
                answers={"start_weights": start_weights},
            )
        )
        with session.store.scratch() as scratch:
            artifacts = put_images(session, stage, received, scratch)
        record = commit_stage(session, stage, artifacts, dict(received.values), consumed=consumed)
    session.live_key = stage.known_key if record.artifacts == artifacts else None
    return record


def _loads(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:
    raise AssertionError(f"{stage.label} has no parent {role}, of {len(records)} records")


INITIALISE = StageKind(
    name="initialise",
    shared=True,
    version=1,
    when="start",
    plan=_plan,
    values=_Values,
    artifacts={"model": TENSORS},
    loads=_loads,
    run=_run,
    compute=_compute,
)
