"""A curve to draw: its points, and against what they may be drawn. Knows no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# U updates, P points of a curve, B buckets of neighbours that become one point

AXES = ("update", "epoch", "time", "samples")
"""What curves may be drawn against; `epoch` and `samples` count what is done, `time` is seconds."""


@dataclass(eq=False)
class Curve:
    """A line: at each x the mean, the lowest and the highest of the values it stands for.

    x: updates done, counted over the whole run; a point of several lies in their middle. marked:
    whether single points are worth seeing.
    """

    name: str
    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    marked: bool = True

    @property
    def has_band(self) -> bool:
        """Whether points stand for several values."""
        return self.low != self.high

    def add(self, x: float, value: float) -> None:
        """A point of one value."""
        self.x.append(x)
        for kept in (self.mean, self.low, self.high):
            kept.append(value)
        self.count.append(1)

    def extend(
        self, steps_U: npt.NDArray[Any], values_U: npt.NDArray[Any], *, buckets: int
    ) -> None:
        """Adds values as at most `buckets` points; those that are not finite leave gaps."""
        finite_U = np.isfinite(values_U)
        steps_U, values_U = steps_U[finite_U], values_U[finite_U]
        count = min(buckets, len(values_U))
        if not count:
            return
        starts_B = np.arange(count) * len(values_U) // count
        sizes_B = np.diff(np.append(starts_B, len(values_U)))
        for kept, found_B in (
            (self.x, np.add.reduceat(steps_U.astype(np.float64), starts_B) / sizes_B),
            (self.mean, np.add.reduceat(values_U / sizes_B.repeat(sizes_B), starts_B)),
            (self.low, np.minimum.reduceat(values_U, starts_B)),
            (self.high, np.maximum.reduceat(values_U, starts_B)),
            (self.count, sizes_B),
        ):
            kept.extend(found_B.tolist())

    def thinned(self, most: int) -> Curve:
        """The curve with at most that many points; of neighbours that join one point remains."""
        if len(self.x) <= most:
            return self
        starts_B = np.arange(most) * len(self.x) // most
        count_P = np.asarray(self.count, dtype=np.float64)
        sizes_B = np.add.reduceat(count_P, starts_B)
        parts_P = count_P / sizes_B.repeat(np.diff(np.append(starts_B, len(self.x))))

        def mean(values: Sequence[float]) -> list[float]:
            found: list[float] = np.add.reduceat(np.asarray(values) * parts_P, starts_B).tolist()
            return found

        return Curve(
            self.name,
            mean(self.x),
            mean(self.mean),
            np.minimum.reduceat(self.low, starts_B).tolist(),
            np.maximum.reduceat(self.high, starts_B).tolist(),
            sizes_B.astype(int).tolist(),
        )
