"""Mining: updates the sample table by one epoch's observations, and plans who trains next.

Pure functions: the same table, context and config give the same plan, whatever the rows' order.
Every random choice is a hash of (seed, epoch, sample id). Knows no files, no torch and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from epochal.data.config.sampling import SamplingConfig
from epochal.data.policies.shared import revisit
from epochal.data.policies.shared.difficulty import inverse_weights, score_of
from epochal.data.policies.shared.floor import raise_to_floor
from epochal.data.policies.shared.label_noise import suspects
from epochal.data.policies.shared.pool import Choice, Columns, PlanContext, make_pool
from epochal.data.samples.table import FLAG_SUSPECT, SampleTable, update

# N samples, E of them easy, Q that rest

UserPolicy = Callable[..., Any]
"""plan(table, context) → (keep_N, weight_N), its arguments bound already."""


class Scores(Protocol):
    """What policies read of a sample table: columns of shape (N,) by name."""

    @property
    def columns(self) -> Mapping[str, npt.NDArray[Any]]:
        """Those of `epochal.data.tables.writing.SAMPLES`; `keep` and `weight` are not read."""


@dataclass(frozen=True, eq=False)
class Planned:
    """Who trains: keep_N, bool of shape (N,); weight_N, of the losses, float32 of shape (N,).

    more: further columns of the table that the plan fixes, of shape (N,).
    """

    keep_N: npt.NDArray[np.bool_]
    weight_N: npt.NDArray[np.float32]
    more: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def updated(
    previous: SampleTable | None,
    observations: Mapping[str, npt.NDArray[Any]],
    config: SamplingConfig,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    epoch: int,
    seed: int,
    scores: Mapping[str, npt.NDArray[Any]] | None = None,
) -> SampleTable:
    """The table after `epoch`, not yet planned.

    Each row depends on its own sample alone, so a part of the table can be updated by itself.
    previous, observations, sample_ids_N: as `epochal.data.samples.table.update` takes them; labels
    that were not observed stay unknown. scores: what the scoring pass after `epoch` saw, or None.
    Where the config has scoring passes and none followed this epoch, the scores of the last pass
    stay. Raises StateMismatch as `update`.
    """
    trained_T = None
    if config.scoring is not None:
        trained_T = observations["sample_id"]
        nothing = {name: values_S[:0] for name, values_S in observations.items()}
        observations = nothing if scores is None else scores
    table = update(
        previous,
        observations,
        epoch=epoch,
        sample_ids_N=sample_ids_N,
        labels_N=None,  # reading them may be too slow
        confidence=config.easy_from,
        trained_T=trained_T,
    )
    carry = config.declaration.carry
    if carry is None:
        return table
    state = carry(
        table.columns,
        None if previous is None else previous.columns,
        epoch=epoch,
        seed=seed,
        settings=config,
        scored=None if config.scoring is None else scores is not None,
    )
    return table.with_columns(state)


def context_of(config: SamplingConfig, epoch: int, *, epochs: int, seed: int) -> PlanContext:
    """The settings by which `epoch`, of a run of `epochs`, is planned."""
    phase = config.phase(epoch, epochs=epochs)
    return PlanContext(
        epoch=epoch, full=phase.full, seed=seed, budget=phase.budget, noise=phase.noise
    )


def plan_epoch(
    table: Scores,
    context: PlanContext,
    config: SamplingConfig,
    *,
    own: UserPolicy | None = None,
) -> Planned:
    """Who trains in `context.epoch`, and with what weights.

    In this order: the policy chooses among the samples that may rest, samples whose labels are
    suspected to be wrong are left out, the floor brings samples back, and weights are computed.

    Full epochs keep everything but the suspects, with weight 1. Whatever a policy chooses, samples
    train that were never seen, whose loss is not finite or whose return is due (`revisit`), and of
    each class at least the floor. own: the function of policy custom. Raises TargetError if that
    function returns no plan.
    """
    columns = table.columns
    suspect_N = None
    if context.noise is not None and config.policy != "none":
        suspect_N = suspects(columns, noise=context.noise, seed=context.seed)
    choice = _choice(table, context, config, own, suspect_N)
    keep_N = _kept(columns, choice, context, config, suspect_N)
    more = _flags(columns, suspect_N)
    probability_N: npt.NDArray[Any] = keep_N  # nothing was chosen by it: credits stay as they are
    if choice.probability_N is not None:
        probability_N = _corrected(choice.probability_N, choice, keep_N, suspect_N)
        weight_N = inverse_weights(probability_N, keep_N, highest=config.weight_cap)
    else:
        weight_N = np.ones(len(keep_N), np.float32) if choice.weight_N is None else choice.weight_N
    if "probability" in config.declaration.state:
        more["probability"] = probability_N.astype(np.float32)
    return Planned(keep_N=keep_N, weight_N=weight_N, more=more)


def _choice(
    table: Scores,
    context: PlanContext,
    config: SamplingConfig,
    own: UserPolicy | None,
    suspect_N: npt.NDArray[np.bool_] | None,
) -> Choice:
    columns, policy = table.columns, config.declaration
    if not context.full and policy.each is not None:
        return each_by_itself(columns, context, config)
    if context.full or policy.choose is None:
        return Choice(np.zeros(0, dtype=np.int64))
    due_N = revisit.is_due(
        columns["sample_id"],
        columns["epoch_seen"],
        epoch=context.epoch,
        revisit=config.longest_absence,
        seed=context.seed,
        phases=not policy.by_lot,
    )
    pool = make_pool(
        columns,
        context,
        score_N=score_of(columns, config.score if "score" in policy.takes else "loss"),
        due_N=due_N,
        suspect_N=suspect_N,
        own=None if own is None else partial(own, table, context),
    )
    return policy.choose(pool, config)


def each_by_itself(columns: Columns, context: PlanContext, config: SamplingConfig) -> Choice:
    """The choice of a policy that judges each sample by itself; those due for a return train."""
    judge = config.declaration.each
    assert judge is not None
    rows_E = judge(columns, config)
    rests_E = revisit.may_rest(
        columns["sample_id"][rows_E],
        columns["epoch_seen"][rows_E],
        epoch=context.epoch,
        revisit=config.longest_absence,
        seed=context.seed,
    )
    return Choice(rows_E[np.flatnonzero(rests_E)])  # faster than by the mask


def _corrected(
    probability_N: npt.NDArray[np.float32],
    choice: Choice,
    keep_N: npt.NDArray[np.bool_],
    suspect_N: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.float32]:
    """The probabilities, but 0 for suspects that rest, and 1 for who came back for the floor."""
    probability_N = probability_N.copy()
    if suspect_N is not None:
        probability_N[suspect_N & ~keep_N] = 0
    probability_N[choice.rest_Q[keep_N[choice.rest_Q]]] = 1
    return probability_N


def _kept(
    columns: Columns,
    choice: Choice,
    context: PlanContext,
    config: SamplingConfig,
    suspect_N: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.bool_]:
    keep_N = np.ones(len(columns["sample_id"]), dtype=bool)
    keep_N[choice.rest_Q] = False
    if suspect_N is not None:
        keep_N &= ~suspect_N
    return raise_to_floor(
        columns,
        keep_N,
        floor=config.floor,
        epoch=context.epoch,
        seed=context.seed,
        last_N=suspect_N,
    )


def _flags(
    columns: Columns, suspect_N: npt.NDArray[np.bool_] | None
) -> dict[str, npt.NDArray[Any]]:
    """The flags column with all suspects marked, also those whom the floor keeps."""
    if suspect_N is None:
        return {}
    others_N = columns["flags"] & np.uint8(0xFF ^ FLAG_SUSPECT)
    return {"flags": others_N | (suspect_N * np.uint8(FLAG_SUSPECT))}
