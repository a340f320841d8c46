"""The sampling policies by name: which settings each goes by, and its own defaults. No pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Policy = Literal[
    "none", "easy_skip", "importance", "infobatch", "kakurenbo", "cvnets", "seta", "hard_mining",
    "selective_backprop", "curriculum", "random", "custom",
]  # fmt: skip
BatchRule = Literal["fixed", "sqrt", "proportional"]
Score = Literal["el2n", "trusted_el2n", "loss"]

STAGES = 4
"""In so many equal steps KAKURENBO hides less and less."""

NOISE_ESTIMATES = 3
"""Epochs for which the share of wrong labels is estimated anew; then it is frozen."""

_BUDGETED = {
    "importance", "random", "hard_mining", "selective_backprop", "curriculum", "kakurenbo",
}  # fmt: skip
_SCORED = {
    "easy_skip", "importance", "infobatch", "kakurenbo", "cvnets", "seta", "hard_mining",
    "selective_backprop", "curriculum", "custom",
}  # fmt: skip
USERS: dict[str, set[str]] = {
    "confidence": {"easy_skip", "cvnets", "kakurenbo"},
    "score": {"importance", "hard_mining"},
    "budget": _BUDGETED | {"infobatch", "seta"},
    "budget_end": _BUDGETED,
    "shares": {"random"},
    "min_probability": {"importance"},
    "max_weight": {"importance", "infobatch", "custom"},
    "every": {"cvnets"},
    "count": {"cvnets"},
    "groups": {"seta"},
    "window": {"seta"},
    "scoring": _SCORED,
    "target": {"custom"},
    "args": {"custom"},
}
"""Field → the policies that go by it; the fields that are not here are for all."""

OBSERVED_FOR: dict[str, set[str]] = {
    "el2n": {"el2n"}, "trusted_el2n": {"el2n", "confidence", "p_true"}, "loss": set(),
}  # fmt: skip
"""Score → what it needs of each sample beside the loss."""

CONFIDENCE = {"kakurenbo": 0.7}
"""Where it is not 0.9."""

REVISIT = {"easy_skip": 2, "cvnets": 2, "kakurenbo": 2, "seta": 10, "random": 10}
"""Epochs of absence, where they are not 4."""

BUDGET = {
    "importance": (0.55, 0.55),
    "curriculum": (0.3, 1.0),
    "kakurenbo": (0.7, 0.88),
    "seta": (0.9, 0.9),
}
"""Share of the first and of the last budgeted epoch, where they are not a half."""


@dataclass(frozen=True)
class SamplingPhase:
    """What acts in one epoch beside the settings that act in all.

    full: it trains on everything. budget: the policy's share in this epoch; None where the policy
    has none, and in full epochs. noise: whether the share of wrong labels is estimated for this
    epoch, was frozen before it, or does not act (None).
    """

    full: bool
    budget: float | None = None
    noise: Literal["estimate", "frozen"] | None = None

    def key_slice(self) -> dict[str, Any]:
        """What acts but for `full`; empty for a policy that goes by nothing else."""
        acting = {"budget": self.budget, "label_noise": self.noise}
        return {name: value for name, value in acting.items() if value is not None}
