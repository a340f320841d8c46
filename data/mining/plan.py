"""From a sample table to who trains in the next epoch: the one entry to all policies.

Pure: the same table, context and config give the same plan, in whatever order the rows stand.
Every random choice is a hash of (seed, epoch, sample id). Knows no files, no torch and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from epochal.data.config.policies import USERS
from epochal.data.config.sampling import SamplingConfig
from epochal.data.policies.curriculum import curriculum
from epochal.data.policies.custom import UserPolicy, custom
from epochal.data.policies.cvnets import cvnets, next_count
from epochal.data.policies.easy_skip import easy_rows
from epochal.data.policies.hard_mining import hard_mining
from epochal.data.policies.importance import importance, next_credit, start_credit
from epochal.data.policies.infobatch import infobatch
from epochal.data.policies.kakurenbo import kakurenbo
from epochal.data.policies.random import random
from epochal.data.policies.selective_backprop import selective_backprop
from epochal.data.policies.seta import seta
from epochal.data.policies.shared import revisit
from epochal.data.policies.shared.difficulty import inverse_weights, score_of
from epochal.data.policies.shared.floor import raise_to_floor
from epochal.data.policies.shared.label_noise import suspects
from epochal.data.policies.shared.pool import Choice, Columns, PlanContext, Pool, make_pool
from epochal.data.samples.table import FLAG_SUSPECT

# N samples, Q that rest

_POLICIES: dict[str, Callable[[Pool], Choice]] = {
    "importance": importance,
    "infobatch": infobatch,
    "kakurenbo": kakurenbo,
    "cvnets": cvnets,
    "seta": seta,
    "hard_mining": hard_mining,
    "selective_backprop": selective_backprop,
    "curriculum": curriculum,
    "random": random,
}
_BY_LOT = {"importance", "infobatch", "selective_backprop", "random", "seta"}
"""Their samples return at different times by themselves; those of others would in waves."""


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


def plan_epoch(
    table: Scores,
    context: PlanContext,
    config: SamplingConfig,
    *,
    own: UserPolicy | None = None,
) -> Planned:
    """Who trains in `context.epoch`: select ∘ revisit ∘ suspects ∘ floor ∘ weights.

    Full epochs keep everything with weight 1, but for suspects. Whatever a policy says, samples
    that were never seen, whose loss is not finite or whose return is due train, and of each class
    at least the floor. own: the function of policy custom. Raises TargetError for what it gives.
    """
    columns = table.columns
    suspect_N = None
    if context.noise is not None and config.policy != "none":
        suspect_N = suspects(columns, noise=context.noise, seed=context.seed)
    if config.policy == "none" or context.full:
        choice, weight_N = Choice(np.zeros(0, dtype=np.int64)), None
    elif config.policy == "easy_skip":
        choice, weight_N = easy_rest(columns, context, config), None
    else:
        score = config.score if config.policy in USERS["score"] else "loss"
        due_N = revisit.is_due(
            columns["sample_id"],
            columns["epoch_seen"],
            epoch=context.epoch,
            revisit=config.longest_absence,
            seed=context.seed,
            phases=config.policy not in _BY_LOT,
        )
        score_N = score_of(columns, score)
        pool = make_pool(
            columns, context, config, score_N=score_N, due_N=due_N, suspect_N=suspect_N
        )
        if config.policy == "custom":
            assert own is not None
            kept_R, weight_N = custom(table, pool, own, max_weight=config.weight_cap)
            choice = pool.rest(kept_R)
        else:
            choice, weight_N = _POLICIES[config.policy](pool), None
            if choice.probability_R is not None:
                return _weighted(pool, choice, suspect_N)
    keep_N = _kept(columns, choice, context, config, suspect_N)
    if weight_N is None:
        weight_N = np.ones(len(keep_N), dtype=np.float32)
    more = _flags(columns, suspect_N)
    if config.policy == "importance":  # a full epoch: everybody is there, and nobody pays for it
        more |= {"credit": columns["credit"], "probability": keep_N.astype(np.float32)}
    elif config.policy == "cvnets":
        more |= {"easy_count": columns["easy_count"]}
    return Planned(keep_N=keep_N, weight_N=weight_N, more=more)


def carry_state(
    columns: Columns,
    previous: Columns | None,
    *,
    epoch: int,
    seed: int,
    config: SamplingConfig,
    scored: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Columns of a policy's own that go from table to table: those after `epoch`, name → (N,).

    columns: of the table with the observations of `epoch`. previous: the planned table that
    `epoch` went by, None for the first one; of the same samples in the same order. scored: whether
    a scoring pass followed `epoch`, under a config that has them.
    """
    ids_N = columns["sample_id"]
    if config.policy == "importance":
        first = previous is None or "credit" not in previous
        credit_N = start_credit(ids_N, seed=seed) if first else next_credit(previous or {})
        return {"credit": credit_N, "probability": np.ones(len(ids_N), dtype=np.float32)}
    if config.policy == "cvnets":
        count_N = np.zeros(len(ids_N), dtype=np.int16)
        if previous is not None and "easy_count" in previous:
            count_N = previous["easy_count"]
        count_N = next_count(columns, count_N, epoch=epoch, config=config, scored=scored)
        return {"easy_count": count_N}
    return {}


def easy_rest(columns: Columns, context: PlanContext, config: SamplingConfig) -> Choice:
    """An easy sample rests unless its return is due; it claims no unbiased gradient."""
    rows_E = easy_rows(columns, confidence=config.easy_from)
    rests_E = revisit.may_rest(
        columns["sample_id"][rows_E],
        columns["epoch_seen"][rows_E],
        epoch=context.epoch,
        revisit=config.longest_absence,
        seed=context.seed,
    )
    return Choice(rows_E[np.flatnonzero(rests_E)])  # faster than by the mask


def _weighted(pool: Pool, choice: Choice, suspect_N: npt.NDArray[np.bool_] | None) -> Planned:
    """The plan of a policy that keeps by probability. Who had to train has a probability of 1."""
    columns, config = pool.columns, pool.config
    keep_N = _kept(columns, choice, pool.context, config, suspect_N)
    probability_N = np.ones(pool.total, dtype=np.float32)
    probability_N[pool.rows_R] = choice.probability_R
    if suspect_N is not None:
        probability_N[suspect_N & ~keep_N] = 0
    rested_N = np.zeros(pool.total, dtype=bool)
    rested_N[choice.rest_Q] = True
    probability_N[rested_N & keep_N] = 1  # the floor has brought them back
    weight_N = inverse_weights(probability_N, keep_N, highest=config.weight_cap)
    more = _flags(columns, suspect_N)
    if config.policy == "importance":
        more |= {"credit": columns["credit"], "probability": probability_N}
    return Planned(keep_N=keep_N, weight_N=weight_N, more=more)


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
    """The flags with the suspects marked, also those whom the floor keeps."""
    if suspect_N is None:
        return {}
    others_N = columns["flags"] & np.uint8(0xFF ^ FLAG_SUSPECT)
    return {"flags": others_N | (suspect_N * np.uint8(FLAG_SUSPECT))}
