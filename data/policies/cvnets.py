"""As ml-cvnets finds easy samples: a count goes up at easy verdicts and down at others.

Its defects are not here: the loader comes back when nothing is easy any more, the count is in the
table and so in every resume, the floor holds, and skipped samples return. Verdicts are those of
the training pass, where a skipped sample's next one is due after `revisit` epochs at most; or, as
published, of a pass over all samples (`scoring`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epochal.data.config.sampling import SamplingConfig
from epochal.data.policies.shared.pool import Choice, Columns, Pool

# N samples


def cvnets(pool: Pool) -> Choice:
    """Skips samples whose count, the table's column `easy_count`, has reached `count`."""
    return pool.rest(pool["easy_count"] < pool.config.count)


def next_count(
    columns: Columns,
    count_N: npt.NDArray[np.int16],
    *,
    epoch: int,
    config: SamplingConfig,
    scored: bool,
) -> npt.NDArray[np.int16]:
    """The counts after `epoch`: int16 of shape (N,).

    Every `every` epochs, each sample seen since the last time counts with its last verdict. With
    `scoring` that is each sample, as published, and scored says whether a pass followed this epoch.
    """
    if (epoch + 1) % config.every or (config.scoring is not None and not scored):
        return count_N
    easy_N = columns["correct"] & (columns["confidence"].astype(np.float64) >= config.easy_from)
    moved_N = np.clip(count_N + np.where(easy_N, 1, -1), 0, config.count)
    if config.scoring is not None:
        return moved_N.astype(np.int16)
    fresh_N = columns["epoch_seen"] > epoch - config.every
    return np.where(fresh_N, moved_N, count_N).astype(np.int16)
