"""The mine stage: scores of all samples seen so far, and which are trained on next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.planning.inputs import with_source
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, put_moment
from epochal.tasks.stages.kind import (
    TABLE,
    Count,
    Listing,
    Planned,
    RecordValues,
    Share,
    StageKind,
)
from epochal.tasks.stages.score import SCORES
from epochal.tasks.user_code.components import own_policy


class _Values(RecordValues):
    kept: Count
    samples: Count
    kept_fraction: Share
    full: bool
    label_noise: Share | None
    suspects: Count
    updates_done: Count


def _plan(listing: Listing, epoch: int | None) -> Planned | None:
    assert epoch is not None
    config, run_inputs = listing.config, listing.run_inputs
    if config.sampling.policy == "none":
        return None
    phase = config.sampling.phase(epoch + 1, epochs=config.epochs)
    acting = phase.key_slice()
    inputs = {
        "seed": config.seed,
        **with_source(run_inputs, "sampling", config.sampling.key_slice()),
        "sampling.full": phase.full,
        **({"sampling.phase": acting} if acting else {}),
        "train_data": run_inputs.train_data.fingerprint,
    }
    parents = {"observations": listing.checkpoint}
    scores, previous = listing.newest("score", epoch=epoch), listing.newest("mine")
    # Without a score stage after this epoch the old scores are kept.
    if config.sampling.scoring is not None:
        inputs["sampling.scoring"] = {"passed": scores is not None}
    if scores is not None:
        parents[SCORES] = scores
    if previous is not None:
        parents["samples"] = previous
    return Planned(inputs, parents)


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    """The sample table after an epoch, with the plan of the next one."""
    from epochal.data.mining.shards import Mined, mine_files

    config, data = session.config, session.data["train_data"]
    sampling, epoch = config.sampling, stage.number
    trained = session.run.record_of(stage.parents["observations"])

    # Only what is the same in every run that has this stage: no name, no path, no time.
    settled = {
        "settings": json.dumps(
            {name: value for name, value in stage.inputs.items() if name.startswith("sampling")},
            sort_keys=True,
        ),
        "data": str(stage.inputs["train_data"]),
        "rows": str(len(data.sample_ids_N)),
        "from": json.dumps(dict(consumed), sort_keys=True),
    }

    def metadata(mined: Mined) -> dict[str, str]:
        return {
            **settled,
            "stage": stage.kind,
            "epoch": str(epoch),
            "key": stage.known_key,
            "policy": sampling.policy,
            "seed": str(config.seed),
            "score_source": "train" if sampling.scoring is None else "eval",
            "kept_fraction": repr(mined.kept / mined.samples),
            "label_noise": "unknown" if mined.noise is None else repr(mined.noise),
            "suspects": str(mined.suspects),
        }

    with ExitStack() as stack:
        observations = stack.enter_context(
            session.stage_store.fetch_artifact(trained, "observations")
        )
        previous: Path | None = None
        if "samples" in stage.parents:
            before = session.run.record_of(stage.parents["samples"])
            previous = stack.enter_context(session.stage_store.fetch_artifact(before, "samples"))
        scores: Path | None = None
        if SCORES in stage.parents:
            scored = session.run.record_of(stage.parents[SCORES])
            scores = stack.enter_context(session.stage_store.fetch_artifact(scored, SCORES))
        path = stack.enter_context(session.store.scratch()) / "samples.parquet"
        mined = mine_files(
            previous,
            observations,
            path,
            sampling,
            sample_ids_N=data.sample_ids_N,
            epoch=epoch,
            epochs=config.epochs,
            seed=config.seed,
            metadata=metadata,
            scores=scores,
            own=own_policy(config),
            on_shard=session.interruption.obey,
        )
        artifact = session.stage_store.put_artifact(stage.known_key, "parquet", path)
    put_moment(session, stage)
    return commit_stage(
        session,
        stage,
        {"samples": artifact},
        {
            "kept": mined.kept,
            "samples": mined.samples,
            "kept_fraction": mined.kept / mined.samples,
            "full": sampling.is_full(epoch + 1, epochs=config.epochs),
            "label_noise": mined.noise,
            "suspects": mined.suspects,
            "updates_done": trained.values["updates_done"],
        },
        consumed=consumed,
    )


def _metrics(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {"sampling/kept": values["kept_fraction"]}


def _points(values: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        **_metrics(values),
        "sampling/label_noise": values["label_noise"],
        "sampling/suspects": values["suspects"] / values["samples"],
    }


def _line(stage: Stage, record: StageRecord) -> list[str]:  # noqa: ARG001 - as a kind is asked
    return [f"{record.values['kept']} of {record.values['samples']} samples kept"]


MINE = StageKind(
    name="mine",
    cause="mining",
    version=2,
    when="epoch",
    field="sampling.policy",
    plan=_plan,
    values=_Values,
    artifacts={"samples": TABLE},
    loads=lambda stage, role, records: (role,),  # noqa: ARG005 - each role is its artifact's name
    run=_run,
    metrics=_metrics,
    points=_points,
    line=_line,
)
