"""Config of BatchNorm's momentum: how much each batch still moves the running statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from pydantic import Field

from epochal.data.types import Frozen
from epochal.engine.schedule.pieces import Piece, function_of, level, line, segments_within


class BatchNormConfig(Frozen):
    """The momentum of each BatchNorm layer goes from its own to `final_momentum`."""

    final_momentum: float = Field(
        ge=0,
        le=1,
        description="what each layer's momentum is at the end: the share of a batch in the running "
        "statistics. Small ones average over many batches of a model that hardly changes any more",
        examples=[0.001],
    )
    shape: Literal["cosine", "linear"] = Field(
        default="cosine", description="of the way from one to the other"
    )
    start: float = Field(
        default=0.0, ge=0, description="epoch (also fractions) from which the momentum changes"
    )
    end: float | None = Field(
        default=None,
        gt=0,
        description="epoch (also fractions) from which it is the final one; none: the run's end. "
        "With a number a longer run recomputes nothing",
    )

    def check(self, epochs: int) -> None:
        """Raises ValueError if the change does not lie within that many epochs."""
        end = epochs if self.end is None else self.end
        if not self.start < end:
            raise ValueError(f"start: {self.start:g} is not before the end, epoch {end:g}")

    def function(self, epochs: int) -> Callable[[float, float], float]:
        """(Fractional epoch, the layer's own momentum) → its momentum then."""
        return partial(self._momentum, function_of(partial(self._share, epochs), epochs=epochs))

    def key_slice(self, epoch: int, *, epochs: int) -> dict[str, Any]:
        """What acts on the numbers of that epoch; nothing before `start`."""
        segments = segments_within(partial(self._share, epochs), epoch)
        if segments == [level(epoch, epoch + 1, 1.0).segment()]:
            return {}
        return {"final_momentum": self.final_momentum, "own_share": segments}

    def _momentum(self, share: Callable[[float], float], t: float, own: float) -> float:
        part = share(t)
        return part * own + (1 - part) * self.final_momentum  # at 1 and at 0 exactly either

    def _share(self, epochs: int, low: float, high: float) -> Iterable[Piece]:  # noqa: ARG002 - a `Window`: three pieces need none chosen
        end = float(epochs) if self.end is None else self.end
        if self.shape == "cosine":
            fall = Piece("cosine", self.start, end, 0.0, 1.0)
        else:
            fall = line(self.start, end, 1.0, 0.0)
        return [level(0.0, self.start, 1.0), fall, level(end, float(epochs), 0.0)]
