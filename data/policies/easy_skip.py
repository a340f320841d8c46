"""Leaves out samples that were easy when they last trained. Costs no pass of its own.

Predictions come from the training pass, with its augmentation and dropout, which lower confidence:
fewer samples count as easy than without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epochal.data.policies.shared.policy import Policy, PolicyFields

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Columns

# N samples, E of them easy


def _easy_rows(columns: Columns, settings: PolicyFields) -> npt.NDArray[np.int64]:
    """Rows of the easy samples: int64 of shape (E,), rising.

    Easy: seen, last predicted right with at least `confidence`, at a finite loss. Never easy are
    samples that were not seen, and models without classes (confidence NaN, `correct` false).
    """
    import numpy as np

    easy_N = columns["confidence"] >= at_least(settings.easy_from)
    easy_N &= columns["correct"]
    easy_N &= columns["epoch_seen"] >= 0
    easy_N &= np.isfinite(columns["loss"])
    return np.flatnonzero(easy_N)


def at_least(value: float) -> np.float32:
    """The lowest float32 not below `value`: gives what comparing in float64 gives, but faster."""
    import numpy as np

    rounded = np.float32(value)
    return rounded if float(rounded) >= value else np.nextafter(rounded, np.float32(np.inf))


POLICY = Policy(
    name="easy_skip",
    summary="all but the samples whose last prediction in training was right and confident, for "
    "a few epochs at a time",
    takes=("confidence", "scoring"),
    revisit=2,
    observes=("confidence", "correct"),
    reads=("confidence", "correct"),
    each=_easy_rows,
)
