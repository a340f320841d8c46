"""The mine stage: scores of all that was seen so far, and who trains in the next epoch."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from epochal.data.stage_store.stages import StageRecord
from epochal.tasks.planning.scoring import SCORES
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, consumed, put_moment
from epochal.tasks.user_code.components import own_policy


def mine(session: Session, stage: Stage) -> StageRecord:
    """The sample table after an epoch, with the plan of the next one."""
    from epochal.data.mining.shards import Mined, mine_files

    config, data = session.config, session.data["train_data"]
    sampling, epoch = config.sampling, stage.number
    trained = session.record_of(stage.parents["observations"])

    read = consumed(session, stage)
    # What is the same whatever run has the stage: no name, no path and no time.
    settled = {
        "settings": json.dumps(
            {name: one for name, one in stage.inputs.items() if name.startswith("sampling")},
            sort_keys=True,
        ),
        "data": str(stage.inputs["train_data"]),
        "rows": str(len(data.sample_ids_N)),
        "from": json.dumps(read, sort_keys=True),
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
            before = session.record_of(stage.parents["samples"])
            previous = stack.enter_context(session.stage_store.fetch_artifact(before, "samples"))
        scores: Path | None = None
        if SCORES in stage.parents:
            scored = session.record_of(stage.parents[SCORES])
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
    )
