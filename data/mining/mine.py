"""Mining: from the table before and one epoch's observations to the table with the next plan.

Pure: the mine stage and benchmarks go through here. Knows no files, no torch and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.data.mining.plan import carry_state, plan_epoch
from epochal.data.policies.shared.pool import PlanContext
from epochal.data.samples.table import SampleTable, update

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.config.sampling import SamplingConfig
    from epochal.data.policies.custom import UserPolicy

# N samples of the data set


def mine_samples(
    previous: SampleTable | None,
    observations: Mapping[str, npt.NDArray[Any]],
    config: SamplingConfig,
    *,
    sample_ids_N: npt.NDArray[np.int64],
    epoch: int,
    epochs: int,
    seed: int,
    scores: Mapping[str, npt.NDArray[Any]] | None = None,
    own: UserPolicy | None = None,
) -> SampleTable:
    """The table after `epoch`, of a run of `epochs`, with the plan of the epoch after it.

    previous, observations, sample_ids_N: as `data.samples.table.update` takes them; labels that
    were not observed stay unknown. scores: what the scoring pass after `epoch` saw; without one,
    and under a config that has passes, the scores before stand. own: the function of policy custom.
    Raises StateMismatch as `update` does, and TargetError for what `own` gives.
    """
    table = updated(
        previous,
        observations,
        config,
        sample_ids_N=sample_ids_N,
        epoch=epoch,
        seed=seed,
        scores=scores,
    )
    context = context_of(config, epoch + 1, epochs=epochs, seed=seed)
    planned = plan_epoch(table, context, config, own=own)
    return table.with_plan(keep_N=planned.keep_N, weight_N=planned.weight_N, more=planned.more)


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
    """The table after `epoch`, not yet planned: of each sample by itself, so of any part of them.

    Raises StateMismatch as `update` does.
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
    before = None if previous is None else previous.columns
    return table.with_columns(
        carry_state(
            table.columns,
            before,
            epoch=epoch,
            seed=seed,
            config=config,
            scored=scores is not None,
        )
    )


def context_of(config: SamplingConfig, epoch: int, *, epochs: int, seed: int) -> PlanContext:
    """What `epoch`, of a run of `epochs`, is planned by."""
    phase = config.phase(epoch, epochs=epochs)
    return PlanContext(
        epoch=epoch, full=phase.full, seed=seed, budget=phase.budget, noise=phase.noise
    )
