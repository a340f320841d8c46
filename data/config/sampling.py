"""Config of the sampling policies: which samples an epoch trains on, and with what weights.

Pure pydantic. Each policy declares itself which fields it uses and its own defaults
(`epochal.data.policies`). What differs from epoch to epoch is a `SamplingPhase`: a stage's key
holds that, never the total number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from epochal.data.config.dataset import DataConfig
from epochal.data.policies import POLICIES, OwnFields, PolicyName
from epochal.data.policies.shared.policy import OBSERVED_FOR, BatchRule, Policy
from epochal.data.types import Frozen, in_json, in_key

NOISE_ESTIMATES = 3
"""Epochs for which the share of wrong labels is estimated anew; then it is frozen."""

_NOT_IN_EVERY_KEY = frozenset({"budget", "budget_end", "shares", "scoring"})


@dataclass(frozen=True)
class SamplingPhase:
    """The settings of one epoch that may be others in the next.

    full: whether the epoch trains on everything. budget: the policy's share of the samples in this
    epoch; None where the policy has none, and in full epochs. noise: `estimate` if the share of
    wrong labels is estimated anew for this epoch, `frozen` if the last estimate stays, None if no
    sample is left out for its label.
    """

    full: bool
    budget: float | None = None
    noise: Literal["estimate", "frozen"] | None = None

    def key_slice(self) -> dict[str, Any]:
        """What a key holds of the phase beside `full`; empty where nothing else is set."""
        acting = {"budget": self.budget, "label_noise": self.noise}
        return {name: value for name, value in acting.items() if value is not None}


class ScoringConfig(Frozen):
    """A pass over all samples between an epoch and its mining."""

    weights: Literal["model", "ema"] = Field(
        default="model",
        description="whose predictions are scored: the model as the epoch left it, or the average "
        "of the weights, which needs `ema`",
    )
    every: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="epochs between two passes; between them the last scores stand. Each pass "
        "costs one forward of every sample. No pass is made where the next epoch trains on "
        "everything",
    )
    data: DataConfig | None = Field(
        default=None,
        description="the same samples in the same order, without augmentation, where `train_data` "
        "augments its items itself; none: `train_data`",
    )

    def is_due(self, epoch: int, *, next_full: bool) -> bool:
        """Whether a pass follows `epoch`. next_full: whether the next one trains on everything."""
        return (epoch + 1) % self.every == 0 and not next_full

    def key_slice(self) -> dict[str, Any]:
        """What a key holds of one pass; its data set has a section of its own in the key."""
        return {"weights": self.weights}


class SamplingConfig(OwnFields):
    """Which samples the next epoch trains on."""

    policy: PolicyName = Field(
        default="none",
        description=". ".join(f"{policy.name}: {policy.summary}" for policy in POLICIES.values()),
    )
    warm_up: int = Field(
        default=1,
        ge=0,
        description="epochs at the start that train on everything; scores of the first epoch say "
        "little",
    )
    final_full: int | None = Field(
        default=None,
        ge=0,
        description="epochs at the end that train on everything; none: an eighth of `epochs`, "
        "rounded up; 0 of importance, which loses by it, and of random with `shares`. With 0 a "
        "longer run recomputes nothing",
    )
    floor: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="share of all samples, and of each class, that is kept at least, in (0, 1]; a "
        "tenth: no class is forgotten however easy it is",
    )
    batch: BatchRule | None = Field(
        default=None,
        description="micro-batches of an epoch that trains on a share of the samples. fixed: "
        "`loader.batch_size`; sqrt: times the root of the share, so that fewer updates are lost; "
        "proportional: times the share, the updates of a full epoch. none: sqrt of importance, "
        "else fixed",
    )
    label_noise: Literal["keep", "drop"] = Field(
        default="keep",
        description="drop: leaves out the samples of lowest mean margin, as many as the estimated "
        "share of wrong labels says: it gains with labels that are wrong at random, and may lose "
        "where classes are mistaken for each other",
    )
    noise_from: int = Field(
        default=3,
        ge=1,
        description="epoch from which suspects are left out; late enough for margins to mean "
        "something, early enough for wrong labels not to be learned by heart",
    )
    scoring: ScoringConfig | None = Field(
        default=None,
        description="scores from a pass of its own, in evaluation mode and without augmentation; "
        "none: those of the training pass, which cost nothing. Not of random, which has no scores",
    )

    @model_validator(mode="after")
    def _fields_fit_the_policy(self) -> Self:
        if self.policy == "none":  # switched off, with its settings left as they are
            return self
        for name, field in type(self).model_fields.items():
            users = [policy.name for policy in POLICIES.values() if name in policy.takes]
            if not users or self.policy in users:
                continue
            if getattr(self, name) != field.get_default(call_default_factory=True):
                raise ValueError(
                    f"{name}: policy {self.policy} does not go by it; it is of "
                    f"{', '.join(users)}; leave it out"
                )
        if self.shares and (self.budget is not None or self.budget_end is not None):
            raise ValueError("shares: they stand for `budget` and `budget_end`; leave these out")
        self.declaration.check(self)
        return self

    @property
    def declaration(self) -> Policy:
        """The policy's declaration: which fields it uses, and its defaults."""
        return POLICIES[self.policy]

    @property
    def batch_rule(self) -> BatchRule:
        """`batch`, or the policy's own."""
        return self.batch or self.declaration.batch

    @property
    def observations(self) -> frozenset[str]:
        """What must be observed of each sample beside its loss; a model with classes gives all."""
        needed = {*self.declaration.observes}
        if "score" in self.declaration.takes:
            needed |= {*OBSERVED_FOR[self.score]}
        if self.label_noise == "drop":
            needed |= {"confidence", "correct", "margin", "label"}
        return frozenset(needed)

    def batch_size(self, full: int, *, kept: int, total: int) -> int:
        """Samples of a micro-batch where `kept` of `total` train, and `full` where all do.

        Where the last micro-batch would be a single sample, which BatchNorm refuses, all are made
        a little larger: nobody can foresee in which epoch a policy leaves such a remainder.
        """
        power = {"fixed": 0.0, "sqrt": 0.5, "proportional": 1.0}[self.batch_rule]
        size = full if power == 0 else max(min(2, full), round(full * (kept / total) ** power))
        while 1 < size < kept < total and kept % size == 1:
            size += 1
        return size

    def is_full(self, epoch: int, *, epochs: int) -> bool:
        """Whether `epoch`, of a run of `epochs`, trains on everything.

        The last mining also plans the epoch after the last, as if the run went on: that epoch is
        not part of the final full phase.
        """
        return epoch < self.warm_up or epochs - self._final_full(epochs) <= epoch < epochs

    def phase(self, epoch: int, *, epochs: int) -> SamplingPhase:
        """The settings of `epoch` alone, in a run of `epochs`."""
        full = self.is_full(epoch, epochs=epochs)
        noise: Literal["estimate", "frozen"] | None = None
        if self.label_noise == "drop" and epoch >= self.noise_from:
            noise = "estimate" if epoch < self.noise_from + NOISE_ESTIMATES else "frozen"
        budget = None if full else self._budget(epoch, epochs=epochs)
        return SamplingPhase(full=full, budget=budget, noise=noise)

    def scores_after(self, epoch: int, *, epochs: int) -> ScoringConfig | None:
        """The scoring pass that follows `epoch` of a run of `epochs`, or None."""
        if self.policy == "none" or self.scoring is None:
            return None
        next_full = self.is_full(epoch + 1, epochs=epochs)
        return self.scoring if self.scoring.is_due(epoch, next_full=next_full) else None

    def key_slice(self) -> dict[str, Any]:
        """What a key holds for every epoch's plan; `phase` has what belongs to one epoch.

        `batch` is not in it: it changes the training, not the plan. Fields that came in a later
        version are left out where they have no effect, so that old keys stay.
        """
        resolved = {"confidence": self.easy_from, "max_weight": self.weight_cap}
        acting = {
            name: self._in_key(resolved.get(name, getattr(self, name)))
            for name in self.declaration.takes
            if name not in _NOT_IN_EVERY_KEY
        }
        common = {"revisit": self.longest_absence, "floor": self.floor}
        return {"policy": self.policy, **acting, **common}

    @staticmethod
    def _in_key(value: Any) -> Any:
        return in_key(value) if isinstance(value, Mapping) else in_json(value)

    def _final_full(self, epochs: int) -> int:
        if self.final_full is not None:
            return self.final_full
        return -(-epochs // 8) if self.declaration.ends_full and not self.shares else 0

    def _budget(self, epoch: int, *, epochs: int) -> float | None:
        policy = self.declaration
        if "budget" not in policy.takes:
            return None
        if self.shares:
            return self.shares[min(epoch, len(self.shares) - 1)]
        start, end = policy.budget
        if self.budget is not None:
            start, end = self.budget, self.budget if self.budget_end is None else self.budget_end
        elif self.budget_end is not None:
            end = self.budget_end
        span = epochs - 1 - self._final_full(epochs) - self.warm_up
        done = min(1.0, max(0, epoch - self.warm_up) / span) if span > 0 else 0.0
        return round(start + (end - start) * policy.pace(done), 12)  # the digits that a key holds
