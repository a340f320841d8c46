"""Config of the validation inside epochs. Pure pydantic; no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from epochal.data.types import Frozen

INSIDE = "validation_inside/"
"""Before the name of a metric among the step metrics."""


class ValidationConfig(Frozen):
    """When the validation metrics are measured beside the end of each epoch."""

    every_updates: int | None = Field(
        default=None,
        ge=1,
        description="updates of an epoch between two validations inside it, for epochs of hours; "
        "none: at its end only",
    )

    def key_slice(self) -> dict[str, Any]:
        """What acts on the tables of a train stage."""
        return self.not_as_usual()
