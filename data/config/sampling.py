"""Config of the sampling policies: which samples an epoch trains on, and with what weights.

Pure pydantic. What acts in one epoch alone is a `SamplingPhase`: keys hold that, never the total
number of epochs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, JsonValue, model_validator

from epochal.data.config.dataset import DataConfig
from epochal.data.config.policies import (
    BUDGET,
    CONFIDENCE,
    NOISE_ESTIMATES,
    OBSERVED_FOR,
    REVISIT,
    STAGES,
    USERS,
    BatchRule,
    Policy,
    SamplingPhase,
    Score,
)
from epochal.data.types import Frozen, Target, TargetName


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
        """What acts in one pass; its data has a section of its own."""
        return {"weights": self.weights}


Share = Annotated[float, Field(gt=0, le=1)]
_NOT_IN_EVERY_KEY = frozenset({"budget", "budget_end", "shares", "scoring"})


class SamplingConfig(Frozen):
    """Which samples the next epoch trains on."""

    policy: Policy = Field(
        default="none",
        description="none: all samples in every epoch. easy_skip: leaves out samples whose last "
        "prediction in training was right and confident, for a few epochs at a time. importance: "
        "keeps hard samples more often, within a budget. infobatch, kakurenbo, cvnets, seta, "
        "hard_mining, selective_backprop, curriculum: as published, without their known defects. "
        "random: the control. custom: a function of your own, `target`",
    )
    confidence: Share | None = Field(
        default=None,
        description="probability of the predicted class from which a right prediction counts as "
        "easy, in (0, 1]; at 0.5 accuracy fell by more than a point, at 0.9 hardly. none: 0.9, "
        "and 0.7 for kakurenbo. Of easy_skip, cvnets and kakurenbo",
    )
    score: Score = Field(
        default="el2n",
        description="what says how hard a sample is. el2n: distance of the probabilities from the "
        "label, for the cross-entropy the bound of its gradient's norm; trusted_el2n: as far as "
        "the label was believed in the mean, and else how unsure the prediction is, so that wrong "
        "labels are not the hardest; loss: for models without classes too. Of importance and "
        "hard_mining",
    )
    budget: Share | None = Field(
        default=None,
        description="share of all samples that an epoch trains on, in (0, 1]: at first, with "
        "`budget_end` at the end. none: 0.55 of importance, 0.3 of curriculum, 0.7 of kakurenbo, "
        "else 0.5. infobatch: of the samples below the mean loss (none: 0.5); seta: drawn before "
        "the window (none: 0.9)",
    )
    budget_end: Share | None = Field(
        default=None,
        description="the share at the end of the budgeted epochs, reached linearly (curriculum: "
        "at their half; kakurenbo: in 4 steps). none: `budget` where that is given, else 0.55 "
        "of importance, 1 of curriculum, 0.88 of kakurenbo, 0.5 of others. Flat budgets keep every "
        "key when a run is extended",
    )
    shares: tuple[Share, ...] = Field(
        default=(),
        max_length=10_000,
        description="of random: the share of each epoch from 0 on, as another run kept them, "
        "instead of a budget; the last one goes on",
        examples=[[1.0, 0.7, 0.6]],
    )
    min_probability: Share = Field(
        default=0.2,
        description="of importance: least probability that a sample is kept, in (0, 1]; with 0.2 "
        "everybody comes at least every 5 epochs, by accumulated credit and not by lot",
    )
    max_weight: float | None = Field(
        default=None,
        ge=1,
        le=1e6,
        description="highest weight of a sample's loss, from 1; weights of kept samples have mean "
        "one. 1 weighs nothing: hard samples then count for more than their share, which did "
        "better than weights up to 4, whose mean gradient is nearer that of all samples. "
        "none: 1 of importance, 4 of infobatch and custom",
    )
    every: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="of cvnets: epochs between two counts of easy verdicts; published are 5, with "
        "which a run of 20 epochs skips nothing",
    )
    count: int = Field(
        default=2,
        ge=1,
        le=1000,
        description="of cvnets: the count from which a sample is skipped; an easy verdict adds "
        "one, any other takes one off",
    )
    groups: int = Field(
        default=10, ge=2, le=1000, description="of seta: groups of like losses, found by k-means"
    )
    window: Share = Field(
        default=0.5,
        description="of seta: share of the groups that train; the window moves on by one group an "
        "epoch, from easy to hard, and wraps",
    )
    target: TargetName | None = Field(
        default=None,
        description="of custom: a function plan(table, context, **args) that returns keep_N and "
        "weight_N, bool and float of shape (N,)",
        examples=["policy:plan"],
    )
    args: dict[str, JsonValue] = Field(
        default_factory=dict, description="of custom: keyword arguments of the call"
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
    revisit: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="epochs in a row that a sample is left out at most; with 2 a verdict is at "
        "most three epochs old. none: 2 of easy_skip, cvnets and kakurenbo, 10 of seta and random, "
        "1 / `min_probability` of importance, 4 of others",
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
        for name, users in USERS.items():
            field = type(self).model_fields[name]
            if self.policy not in users and getattr(self, name) != field.get_default(
                call_default_factory=True
            ):
                raise ValueError(
                    f"{name}: policy {self.policy} does not go by it; it is of "
                    f"{', '.join(one for one in get_args(Policy) if one in users)}; leave it out"
                )
        if (self.policy == "custom") != (self.target is not None):
            raise ValueError("target: policy custom needs one, as `module:function`")
        if self.shares and (self.budget is not None or self.budget_end is not None):
            raise ValueError("shares: they stand for `budget` and `budget_end`; leave these out")
        return self

    @property
    def callable_target(self) -> Target | None:
        """The user's function with its arguments, of policy custom."""
        return None if self.target is None else Target(target=self.target, args=self.args)

    @property
    def easy_from(self) -> float:
        """`confidence`, or the policy's own."""
        return self.confidence or CONFIDENCE.get(self.policy, 0.9)

    @property
    def longest_absence(self) -> int:
        """`revisit`, or the policy's own, in epochs."""
        if self.revisit is not None:
            return self.revisit
        if self.policy == "importance":
            return min(1000, max(1, round(1 / self.min_probability)))
        return REVISIT.get(self.policy, 4)

    @property
    def weight_cap(self) -> float:
        """`max_weight`, or the policy's own."""
        return self.max_weight or (1.0 if self.policy == "importance" else 4.0)

    @property
    def batch_rule(self) -> BatchRule:
        """`batch`, or the policy's own."""
        return self.batch or ("sqrt" if self.policy == "importance" else "fixed")

    @property
    def observations(self) -> frozenset[str]:
        """What must be observed of each sample beside its loss; a model with classes gives all."""
        needed = {"confidence", "correct"} if self.policy in USERS["confidence"] else set()
        if self.policy in USERS["score"]:
            needed |= OBSERVED_FOR[self.score]
        if self.label_noise == "drop":
            needed |= {"confidence", "correct", "margin", "label"}
        return frozenset(needed)

    def batch_size(self, full: int, *, kept: int, total: int) -> int:
        """Samples of a micro-batch where `kept` of `total` train, and `full` where all do.

        Where one would be a single sample, which BatchNorm refuses, all are a little larger: which
        epoch a policy would leave such a rest in, nobody can foresee.
        """
        power = {"fixed": 0.0, "sqrt": 0.5, "proportional": 1.0}[self.batch_rule]
        size = full if power == 0 else max(min(2, full), round(full * (kept / total) ** power))
        while 1 < size < kept < total and kept % size == 1:
            size += 1
        return size

    def is_full(self, epoch: int, *, epochs: int) -> bool:
        """Whether `epoch`, of a run of `epochs`, trains on everything.

        The epoch after the last one, which the last mining plans as if the run went on, is in no
        final phase.
        """
        return epoch < self.warm_up or epochs - self._final_full(epochs) <= epoch < epochs

    def phase(self, epoch: int, *, epochs: int) -> SamplingPhase:
        """What acts in `epoch` of a run of `epochs`."""
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
        """What acts on a plan in every epoch; `phase` has the rest, and `batch` acts in training.

        Fields that came later are left out where they do nothing.
        """
        acting: dict[str, Any] = {"policy": self.policy}
        resolved = {"confidence": self.easy_from, "max_weight": self.weight_cap}
        for name, users in USERS.items():
            if self.policy in users and name not in _NOT_IN_EVERY_KEY:
                acting[name] = resolved.get(name, getattr(self, name))
        return {**acting, "revisit": self.longest_absence, "floor": self.floor}

    def _final_full(self, epochs: int) -> int:
        if self.final_full is not None:
            return self.final_full
        return 0 if self.policy == "importance" or self.shares else -(-epochs // 8)

    def _budget(self, epoch: int, *, epochs: int) -> float | None:
        if self.policy not in USERS["budget"]:
            return None
        if self.shares:
            return self.shares[min(epoch, len(self.shares) - 1)]
        start, end = BUDGET.get(self.policy, (0.5, 0.5))
        if self.budget is not None:
            start, end = self.budget, self.budget if self.budget_end is None else self.budget_end
        elif self.budget_end is not None:
            end = self.budget_end
        span = epochs - 1 - self._final_full(epochs) - self.warm_up
        done = min(1.0, max(0, epoch - self.warm_up) / span) if span > 0 else 0.0
        if self.policy == "curriculum":
            done = min(1.0, 2 * done)
        elif self.policy == "kakurenbo":
            done = min(int(done * STAGES), STAGES - 1) / (STAGES - 1)
        return round(start + (end - start) * done, 12)  # the digits that a key holds
