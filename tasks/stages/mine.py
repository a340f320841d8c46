"""The mine stage: scores of all samples seen so far, and which are trained on next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.stage_store.stages import StageRecord
from epochal.data.types import seed_64
from epochal.tasks.computing.link import obey
from epochal.tasks.computing.work import Computed, Order, Work
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.inputs import with_source
from epochal.tasks.planning.stage import Stage
from epochal.tasks.session.session import Session
from epochal.tasks.stages.commit import commit_stage, computed, put_moment
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

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.mining.shards import Mined


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


def _metadata(config: RunConfig, settled: Mapping[str, str], mined: Mined) -> dict[str, str]:
    sampling = config.sampling
    return {
        **settled,
        "policy": sampling.policy,
        "seed": str(config.seed),
        "score_source": "train" if sampling.scoring is None else "eval",
        "kept_fraction": repr(mined.kept / mined.samples),
        "label_noise": "unknown" if mined.noise is None else repr(mined.noise),
        "suspects": str(mined.suspects),
    }


def _mined(
    config: RunConfig,
    epoch: int,
    paths: Mapping[str, Path],
    out: Path,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    metadata: Callable[[Mined], dict[str, str]],
    on_shard: Callable[[], None],
) -> Mined:
    from epochal.data.mining.shards import mine_files

    return mine_files(
        paths.get("samples"),
        paths["observations"],
        out,
        config.sampling,
        sample_ids_N=sample_ids_N,
        epoch=epoch,
        epochs=config.epochs,
        seed=config.seed,
        metadata=metadata,
        scores=paths.get(SCORES),
        own=own_policy(config),
        on_shard=on_shard,
    )


def _compute(work: Work, order: Order) -> Computed:
    """Mining by a policy of the user's own."""
    from epochal.engine.randomness import seeded

    given = order.given
    with seeded(seed_64(work.config.seed, "mine", order.number)):
        mined = _mined(
            work.config,
            order.number,
            {role: Path(path) for role, path in given["paths"].items()},
            Path(given["out"]),
            sample_ids_N=work.data["train_data"].sample_ids_N,
            metadata=partial(_metadata, work.config, given["settled"]),
            on_shard=partial(obey, work.link),
        )
    return Computed(values=asdict(mined))


def _run(session: Session, stage: Stage, consumed: Mapping[str, str]) -> StageRecord:
    """The sample table after an epoch, with the plan of the next one."""
    from epochal.data.mining.shards import Mined

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
        "stage": stage.kind,
        "epoch": str(epoch),
        "key": stage.known_key,
    }
    with ExitStack() as stack:
        paths: dict[str, Path] = {}
        for role in ("observations", "samples", SCORES):
            if role in stage.parents:
                record = session.run.record_of(stage.parents[role])
                fetched = session.stage_store.fetch_artifact(record, role)
                paths[role] = stack.enter_context(fetched)
        path = stack.enter_context(session.store.scratch()) / "samples.parquet"
        if sampling.callable_target is None:
            mined = _mined(
                config,
                epoch,
                paths,
                path,
                sample_ids_N=data.sample_ids_N,
                metadata=partial(_metadata, config, settled),
                on_shard=session.interruption.obey,
            )
        else:  # the user's own policy is their code
            given = {
                "paths": {role: str(one) for role, one in paths.items()},
                "out": str(path),
                "settled": settled,
            }
            received = stack.enter_context(computed(session, stage, given=given))
            mined = Mined(**received.values)
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
    compute=_compute,
    metrics=_metrics,
    points=_points,
    line=_line,
)
