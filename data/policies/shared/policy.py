"""The declaration of a sampling policy, which config, keys and plans follow.

Reading a config needs the declarations, so NumPy is imported neither here nor at the top of a
policy's file, but only when something is chosen.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from epochal.data.types import Frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.policies.shared.pool import Choice, Columns, Pool

# N samples, E of them easy

BatchRule = Literal["fixed", "sqrt", "proportional"]
Score = Literal["el2n", "trusted_el2n", "loss"]
Share = Annotated[float, Field(gt=0, le=1)]

OBSERVED_FOR: dict[str, tuple[str, ...]] = {
    "el2n": ("el2n",),
    "trusted_el2n": ("el2n", "confidence", "p_true"),
    "loss": (),
}
"""Score → what it needs of each sample beside the loss."""


class Carry(Protocol):
    """A function that computes the columns of a policy's state after an epoch."""

    def __call__(
        self,
        columns: Columns,
        previous: Columns | None,
        *,
        epoch: int,
        seed: int,
        settings: Any,
        scored: bool | None,
    ) -> Mapping[str, npt.NDArray[Any]]:
        """The columns that `Policy.state` names, each of shape (N,).

        columns: of the table that has the observations of `epoch` already. previous: the table by
        whose plan `epoch` trained, of the same samples in the same order; None at first. It lacks
        the state if another policy made it. scored: whether a scoring pass followed `epoch`; None
        if the config has no scoring passes.
        """


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One sampling policy.

    Its functions get the config, `SamplingConfig`, as `settings`; the type of that parameter says
    which fields they use.

    name: as in `sampling.policy`.
    summary: what an epoch trains on, in a few words.
    takes: the fields of `sampling` that it uses, beside those that all policies use. Others must
    not be set.
    check: raises ValueError for fields that do not fit together.

    The policy's defaults, for fields of the config that are none:
    confidence, max_weight, batch: as the fields of these names.
    budget: the share at first and the share at the end.
    revisit: epochs, or a function that computes them from the settings.
    ends_full: whether the last eighth of the epochs trains on everything.
    pace: maps the part of the budgeted epochs that is done to the part of the way from the first
    budget to the last, both from 0 to 1.

    observes: what training must observe of each sample beside its loss and what a `score` needs.
    reads: the columns of the sample table that it reads beside those that all read; None: all.
    by_lot: whether it chooses by lot. Its samples then return at different times by themselves;
    for other policies `revisit` staggers the returns.
    state: columns of its own in the sample table. carry: computes them after each epoch. If one of
    them is `probability`, the plan sets it: the probability with which a sample was to be kept.

    choose: chooses from a pool whom it keeps.
    each: instead of `choose`, for a policy that judges each sample by itself, so that a part of the
    table can be planned like the whole: gives the rows that may rest, int64 of shape (E,), rising.
    With neither, every sample trains in every epoch.
    """

    name: str
    summary: str
    takes: tuple[str, ...] = ()
    check: Callable[[Any], None] = lambda _: None
    confidence: float = 0.9
    max_weight: float = 4.0
    budget: tuple[float, float] = (0.5, 0.5)
    revisit: int | Callable[[Any], int] = 4
    batch: BatchRule = "fixed"
    ends_full: bool = True
    pace: Callable[[float], float] = lambda done: done
    observes: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = ()
    by_lot: bool = False
    state: tuple[str, ...] = ()
    carry: Carry | None = None
    choose: Callable[[Pool, Any], Choice] | None = None
    each: Callable[[Columns, Any], npt.NDArray[np.int64]] | None = None


class PolicyFields(Frozen):
    """The settings that more than one policy takes; what only one takes is declared beside it."""

    policy: str = "none"
    confidence: Share | None = Field(
        default=None,
        description="probability of the predicted class from which a right prediction counts as "
        "easy, in (0, 1]; at 0.5 accuracy fell by more than a point, at 0.9 hardly. none: the "
        "policy's own, 0.9 of easy_skip",
    )
    score: Score = Field(
        default="el2n",
        description="what says how hard a sample is. el2n: distance of the probabilities from the "
        "label, for the cross-entropy the bound of its gradient's norm; trusted_el2n: as far as "
        "the label was believed in the mean, and else how unsure the prediction is, so that wrong "
        "labels are not the hardest; loss: for models without classes too",
    )
    budget: Share | None = Field(
        default=None,
        description="share of all samples that an epoch trains on, in (0, 1]: at first, with "
        "`budget_end` at the end. none: the policy's own, 0.55 of importance, 0.5 of random",
    )
    budget_end: Share | None = Field(
        default=None,
        description="the share at the end of the budgeted epochs, reached linearly. none: `budget` "
        "where that is given, else the policy's own. Flat budgets keep every key when a run is "
        "extended",
    )
    shares: tuple[Share, ...] = Field(
        default=(),
        max_length=10_000,
        description="of random: the share of each epoch from 0 on, as another run kept them, "
        "instead of a budget; the last one goes on",
        examples=[[1.0, 0.7, 0.6]],
    )
    max_weight: float | None = Field(
        default=None,
        ge=1,
        le=1e6,
        description="highest weight of a sample's loss, from 1; weights of kept samples have mean "
        "one. 1 weighs nothing: hard samples then count for more than their share, which did "
        "better than weights up to 4, whose mean gradient is nearer that of all samples. "
        "none: the policy's own, 1 of importance, 4 of custom",
    )
    revisit: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="epochs in a row that a sample is left out at most; with 2 a verdict is at "
        "most three epochs old. none: the policy's own, 2 of easy_skip, 1 / `min_probability` of "
        "importance, 10 of random, 4 of custom",
    )

    @property
    @abstractmethod
    def declaration(self) -> Policy:
        """The policy that these are settings of."""

    @property
    def easy_from(self) -> float:
        """`confidence`, or the policy's own."""
        return self.confidence or self.declaration.confidence

    @property
    def weight_cap(self) -> float:
        """`max_weight`, or the policy's own."""
        return self.max_weight or self.declaration.max_weight

    @property
    def longest_absence(self) -> int:
        """`revisit`, or the policy's own, in epochs."""
        if self.revisit is not None:
            return self.revisit
        own = self.declaration.revisit
        return own if isinstance(own, int) else own(self)
