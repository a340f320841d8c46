"""Config of the scoring pass: scores from a forward pass of its own, instead of from training.

Pure pydantic.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from epochal.data.config.dataset import DataConfig
from epochal.data.types import Frozen


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
