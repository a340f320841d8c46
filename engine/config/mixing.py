"""Config of mixing: mixup, CutMix and smoothed labels. Pure pydantic; no torch."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from epochal.data.types import Frozen


class MixingConfig(Frozen):
    """Training on mixtures of two samples of a micro-batch, and on smoothed labels."""

    mixup: float | None = Field(
        default=None,
        gt=0,
        description="alpha of mixup: inputs are blended, by a share from Beta(alpha, alpha); 0.2 "
        "is usual for images. none: no mixup",
    )
    cutmix: float | None = Field(
        default=None,
        gt=0,
        description="alpha of CutMix: a box of another image is pasted, whose area is drawn from "
        "Beta(alpha, alpha); 1 is usual. none: no CutMix",
    )
    probability: float = Field(
        default=1.0, gt=0, le=1, description="share of the samples that are mixed; 1: all"
    )
    switch: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="where both are given, share of the mixed samples that get CutMix; the others "
        "get mixup",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of a label that is spread evenly over all classes; above 0 the loss is "
        "given probabilities of shape (batch, classes) instead of classes. Validation is not "
        "smoothed",
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.mixup is None and self.cutmix is None and not self.label_smoothing:
            raise ValueError(
                "neither mixup, cutmix nor label_smoothing is given; give one of them, for example "
                "mixup: 0.2, or leave `mixing` out"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether inputs are mixed at all, or labels are smoothed only."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def cut_share(self) -> float:
        """Share of the mixed samples that get CutMix."""
        if self.cutmix is None:
            return 0.0
        return 1.0 if self.mixup is None else self.switch

    def key_slice(self) -> dict[str, Any]:
        """What acts on numbers: what is not as usual."""
        return self.model_dump(mode="json", exclude_defaults=True)
