"""What a stage, an epoch or a run has cost, as `goodput.json` beside a stage's record holds it.

Totals add up: the parts of an epoch that was resumed, the stages of an epoch, the epochs of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.tasks.goodput.stopwatch import CAUSES, LOOP, PRODUCTIVE, Cause

GOODPUT = "goodput.json"
_MOST_SECONDS = 1e10
_MOST_COUNT = 1 << 53
_MOST_FLOPS = 1e30
_NS = 1_000_000_000
_COUNTS = ("samples", "resumed", "unknown_losses")
_PEAKS = ("peak_host_bytes", "peak_child_bytes", "peak_device_bytes")


@dataclass(frozen=True)
class Totals:
    """What was spent, and what for.

    seconds: by cause; those that took no time are left out. samples: that were trained on in these
    seconds. resumed: how often work went on after a process had ended. unknown_losses: how many
    times of these nobody knows what was lost, so that `lost` is less than it was.
    peak_host_bytes: the most memory that the computing process has had since it began;
    peak_child_bytes: the same of the largest of its child processes that have ended, such as a
    worker of the loader.
    peak_device_bytes: the most that tensors took on the device.
    flops: operations of the samples' forward and backward passes. possible_flops: what the device
    could have done in the seconds of the loop; both None unless both are known.
    """

    seconds: Mapping[Cause, float] = field(default_factory=dict)
    samples: int = 0
    resumed: int = 0
    unknown_losses: int = 0
    peak_host_bytes: int | None = None
    peak_child_bytes: int | None = None
    peak_device_bytes: int | None = None
    flops: float | None = None
    possible_flops: float | None = None

    @property
    def wall_seconds(self) -> float:
        """Of all causes."""
        return math.fsum(self.seconds.values())

    @property
    def loop_seconds(self) -> float:
        """Of the training loop: data, forward and backward, optimizer, communication."""
        return math.fsum(self.seconds.get(cause, 0.0) for cause in LOOP)

    @property
    def share(self) -> float | None:
        """Share of the time that moved the weights, from 0 to 1; None where there is no time."""
        wall = self.wall_seconds
        productive = math.fsum(self.seconds.get(cause, 0.0) for cause in PRODUCTIVE)
        return min(1.0, productive / wall) if wall > 0 else None

    @property
    def samples_per_second(self) -> float | None:
        """Of the training loop; None where nothing was trained."""
        loop = self.loop_seconds
        return self.samples / loop if loop > 0 and self.samples else None

    @property
    def flops_utilisation(self) -> float | None:
        """Operations of the model over those that the device could have done; None if not known."""
        if self.flops is None or not self.possible_flops:
            return None
        return self.flops / self.possible_flops

    @property
    def peaks(self) -> dict[str, int]:
        """Whose memory → its peak in bytes, where it is known."""
        named = {
            "host": self.peak_host_bytes,
            "largest child": self.peak_child_bytes,
            "device": self.peak_device_bytes,
        }
        return {name: peak for name, peak in named.items() if peak is not None}

    def __add__(self, other: Totals) -> Totals:
        """Both together: seconds and counts are added, of peaks the higher one holds."""
        seconds = {
            cause: self.seconds.get(cause, 0.0) + other.seconds.get(cause, 0.0)
            for cause in CAUSES
            if cause in self.seconds or cause in other.seconds
        }
        return Totals(
            seconds,
            samples=self.samples + other.samples,
            resumed=self.resumed + other.resumed,
            unknown_losses=self.unknown_losses + other.unknown_losses,
            peak_host_bytes=_higher(self.peak_host_bytes, other.peak_host_bytes),
            peak_child_bytes=_higher(self.peak_child_bytes, other.peak_child_bytes),
            peak_device_bytes=_higher(self.peak_device_bytes, other.peak_device_bytes),
            flops=_sum(self.flops, other.flops),
            possible_flops=_sum(self.possible_flops, other.possible_flops),
        )

    def body(self) -> dict[str, Any]:
        """As JSON: causes in seconds, and the other fields that are known and not 0."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        known = {name: getattr(self, name) for name in (*_PEAKS, "flops", "possible_flops")}
        return {
            "seconds": dict(self.seconds),
            **{name: count for name, count in counts.items() if count},
            **{name: value for name, value in known.items() if value is not None},
        }


def of_nanoseconds(spent_ns: Mapping[Cause, int]) -> Totals:
    """What a stopwatch has counted, to the microsecond."""
    return Totals(
        {cause: round(spent / _NS, 6) for cause, spent in spent_ns.items() if round(spent / 1000)}
    )


def total(parts: Iterable[Totals]) -> Totals:
    """All of them together."""
    whole = Totals()
    for part in parts:
        whole += part
    return whole


def with_lost(totals: Totals, seconds: float | None, *, commit_seconds: float = 0.0) -> Totals:
    """The totals of what went on after a process had ended; seconds: lost with it, if known.

    commit_seconds: that it spent on the commit which it left behind, beside these.
    """
    spent = dict(totals.seconds)
    more: dict[Cause, float] = {"lost": seconds or 0.0, "commit": commit_seconds}
    for cause, added in more.items():
        spent[cause] = round(spent.get(cause, 0.0) + max(0.0, added), 6)
    return replace(
        totals,
        seconds={cause: spent[cause] for cause in CAUSES if spent.get(cause)},
        resumed=totals.resumed + 1,
        unknown_losses=totals.unknown_losses + (seconds is None),
    )


def checked_totals(body: Any) -> Totals:
    """`body` as `Totals.body` gives it. Raises CorruptObject; passes over fields it does not know.

    Causes that it does not know count for `orchestration`, so that the seconds still add up.
    """
    seconds = body.get("seconds") if isinstance(body, dict) else None
    if not isinstance(seconds, dict) or not all(
        isinstance(cause, str) and _is_number(spent, _MOST_SECONDS)
        for cause, spent in seconds.items()
    ):
        raise CorruptObject(f"{GOODPUT}: found {seconds!r:.80}, expected seconds by cause")
    counts = {name: body.get(name, 0) for name in _COUNTS}
    peaks = {name: body[name] for name in _PEAKS if name in body}
    for name, count in {**counts, **peaks}.items():
        if type(count) is not int or not 0 <= count <= _MOST_COUNT:
            raise CorruptObject(f"{GOODPUT}: {name} is {count!r:.40}, expected a count")
    flops = {name: body[name] for name in ("flops", "possible_flops") if name in body}
    if len(flops) == 1:
        raise CorruptObject(f"{GOODPUT}: {next(iter(flops))} stands alone, expected both or none")
    for name, value in flops.items():
        if not _is_number(value, _MOST_FLOPS):
            raise CorruptObject(f"{GOODPUT}: {name} is {value!r:.40}, expected a number from 0")
    known: dict[Cause, float] = {
        cause: float(seconds[cause]) for cause in CAUSES if seconds.get(cause)
    }
    foreign = math.fsum(spent for cause, spent in seconds.items() if cause not in CAUSES)
    if foreign:
        known["orchestration"] = known.get("orchestration", 0.0) + foreign
    return Totals(known, **counts, **peaks, **flops)


def _is_number(value: Any, most: float) -> bool:
    return type(value) in {int, float} and 0 <= value <= most  # NaN is in no interval


def _higher(one: int | None, other: int | None) -> int | None:
    known = [peak for peak in (one, other) if peak is not None]
    return max(known, default=None)


def _sum(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return sum(known) if known else None
