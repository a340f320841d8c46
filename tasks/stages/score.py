"""The score stage: the model of an epoch is asked about each sample, in a separate pass."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Literal

from epochal.data.config.dataset import DataConfig
from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.engine.config.numerics import EMA
from epochal.tasks.checkpoints.end_of_epoch import COMPANIONS, load_ema, load_model
from epochal.tasks.computing.work import Computed, Order, ParentArtifacts, Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.inputs import (
    forward_inputs,
    transform_inputs,
    validation_batch_size,
    with_source,
)
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, computed, number, put_moment
from epochal.tasks.stages.kind import (
    TABLE,
    Count,
    Listing,
    Number,
    Planned,
    RecordValues,
    StageKind,
)

if TYPE_CHECKING:
    import numpy.typing as npt


SCORES = "scores"
"""Name of the artifact, and of the role that the stage has as a parent of `mine`."""
SCORING_DATA: Literal["sampling.scoring.data"] = "sampling.scoring.data"
"""The config's field of a data set that only this stage reads."""


class _Values(RecordValues):
    samples: Count
    extra_forwards: Count
    loss: Number | None
    accuracy: Number | None
    updates_done: Count


def own_data(config: RunConfig) -> DataConfig | None:
    """`sampling.scoring.data`, or None where the pass reads `train_data` or there is no pass."""
    sampling = config.sampling
    if sampling.policy == "none" or sampling.scoring is None:
        return None
    return sampling.scoring.data


def _plan(listing: Listing, epoch: int | None) -> Planned | None:
    assert epoch is not None
    config, run_inputs = listing.config, listing.run_inputs
    sampling = config.sampling
    if sampling.policy == "none" or sampling.scores_after(epoch, epochs=config.epochs) is None:
        return None
    assert sampling.scoring is not None
    name, data = "train_data", run_inputs.train_data
    own = own_data(config)
    if own is not None and run_inputs.scoring_data is not None:
        name, data = SCORING_DATA, run_inputs.scoring_data
    inputs = {
        **forward_inputs(config, run_inputs),
        "sampling.scoring": sampling.scoring.key_slice(),
        **with_source(run_inputs, name, data.fingerprint),
        **transform_inputs(name, own or config.train_data),
    }
    return Planned(inputs, {"parent": listing.checkpoint})


def _loads(stage: Stage, role: str, records: Mapping[str, StageRecord]) -> tuple[str, ...]:  # noqa: ARG001 - as a kind is asked
    return ("model", *(("ema",) if _is_of_average(stage.inputs) else ()), *COMPANIONS)


def _is_of_average(inputs: Mapping[str, Any]) -> bool:
    return bool(inputs["sampling.scoring"]["weights"] == EMA.rstrip("/"))


def _compute(work: Work, order: Order) -> Computed:
    from epochal.engine.measure.observe import mean_of

    columns = _scored(work, order)
    correct_N = columns["correct"][columns["label"] >= 0]
    return Computed(
        values={
            "samples": len(columns["loss"]),
            "extra_forwards": len(columns["loss"]),
            "loss": number(mean_of(columns)),
            "accuracy": number(float(correct_N.mean())) if len(correct_N) else None,
        },
        columns={SCORES: columns},
    )


def _scored(work: Work, order: Order) -> dict[str, npt.NDArray[Any]]:
    from epochal.data.loading.loader import validation_batches
    from epochal.engine.loop.evaluate import score_samples
    from epochal.tasks.computing.augmented import augmented
    from epochal.tasks.computing.watch import PassWatch

    config = work.config
    field = SCORING_DATA if SCORING_DATA in work.data else "train_data"
    data = work.data[field]
    components = work.ready_components()
    average = _is_of_average(order.inputs)
    state = components.state
    if not order.live:
        work.touched = True
        record, artifacts = order.parents["parent"], ParentArtifacts(work.link, order)
        load_model(artifacts, record, components)
        if average and state.ema is not None:
            load_ema(artifacts, record, state.ema, state.slices)
    size = validation_batch_size(config)
    batches = validation_batches(
        data.dataset,
        batch_size=size,
        sample_ids_N=data.ids_N,
        readers=work.readers(field, batch_size=size),
        collate=components.collate,
        **work.share,
    )
    batches = augmented(batches, config, "validation", device=components.device)
    with ExitStack() as stack:
        stack.enter_context(closing(batches))  # else a stored error would keep its workers alive
        if average and state.ema is not None:
            stack.enter_context(state.ema.applied())
        return score_samples(
            state.model,
            batches,
            step=components.step,
            seed=seed_64(config.seed, "score", order.number),
            precision=config.precision,
            forward=state.forward,
            on_batch=PassWatch(
                work.link,
                "batches of scoring",
                work.num_batches(field, batch_size=size),
                after=work.obey,
            ),
            group=work.group,
        )


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    """The table of scores of one checkpoint, of all samples; a broken pass starts again."""
    from epochal.data.tables.writing import OBSERVATIONS, write_table

    trained = session.run.record_of(stage.parents["parent"])
    metadata = {
        "stage": stage.kind,
        "epoch": str(stage.epoch),
        "key": stage.known_key,
        "score_source": "eval",
        "weights": stage.inputs["sampling.scoring"]["weights"],
    }
    with computed(session, stage, "parent") as received:
        with session.store.scratch() as scratch:
            path = scratch / "scores.parquet"
            write_table(received.columns[SCORES], path, schema=OBSERVATIONS, metadata=metadata)
            artifact = session.stage_store.put_artifact(stage.known_key, "parquet", path)
        put_moment(session, stage)
        values = {**received.values, "updates_done": trained.values["updates_done"]}
        return commit_stage(session, stage, {SCORES: artifact}, values, consumed=consumed)


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {"sampling/extra_forwards": values["extra_forwards"]}


SCORE = StageKind(
    name="score",
    shared=True,
    cause="mining",
    version=2,
    when="epoch",
    field="sampling.scoring",
    plan=_plan,
    values=_Values,
    artifacts={SCORES: TABLE},
    loads=_loads,
    run=_run,
    compute=_compute,
    metrics=_metrics,
    points=_metrics,
    line=lambda stage, record: [f"{record.values['extra_forwards']} samples scored"],  # noqa: ARG005
)
