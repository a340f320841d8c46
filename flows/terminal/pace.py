"""How fast a run goes, and what that leaves: pure, the clock's time is given.

Seconds are of a clock that only runs forward; epochs count from 0.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 20.0
"""What of an epoch its speed is taken from: the last of it, so that it follows a slower disk."""
LAST_EPOCHS = 3
"""Of what epochs cost only the last count: a policy may leave ever more samples out."""


@dataclass
class EpochPace:
    """The speed of one epoch, of its updates and of its samples."""

    num_updates: int
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def moved(self, update: int, samples: int, *, now: float) -> None:
        """So many updates and samples are done by now."""
        self._seen.append((now, update, samples))
        while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_S:  # noqa: PLR2004 - a line
            self._seen.popleft()

    @property
    def samples_per_second(self) -> float | None:
        """None before there are two signs."""
        return self._speed(2)

    @property
    def whole_s(self) -> float | None:
        """What all updates of the epoch would take."""
        speed = self._speed(1)
        return None if not speed else self.num_updates / speed

    def left_s(self, now: float) -> float | None:
        """What is left of it."""
        speed = self._speed(1)
        if not speed:
            return None
        at, update, _ = self._seen[-1]
        return max(0.0, (self.num_updates - update) / speed - (now - at))

    def _speed(self, of: int) -> float | None:
        if len(self._seen) < 2:  # noqa: PLR2004 - a line has two points
            return None
        first, last = self._seen[0], self._seen[-1]
        seconds, done = last[0] - first[0], last[of] - first[of]
        return done / seconds if seconds > 0 and done > 0 else None


@dataclass
class RunPace:
    """What a run's epochs cost, and how many are still to be computed.

    missing: epochs whose training is to be computed, the one at work with them.
    """

    missing: set[int] = field(default_factory=set)
    _began: tuple[int, float] | None = None
    _trained_s: float = 0.0
    _epochs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=LAST_EPOCHS))
    _whole: bool = True

    def began(self, epoch: int, *, now: float) -> None:
        """Training of that epoch begins, or what follows the last one."""
        self.ended(now=now)
        self._began, self._trained_s, self._whole = (epoch, now), 0.0, True

    def resumed(self) -> None:
        """The epoch at work is not computed from its beginning: it tells nothing of whole ones."""
        self._whole = False

    def trained(self, seconds: float) -> None:
        """The updates of the epoch at work are done; validation and mining come behind."""
        self._trained_s = seconds
        if self._began is not None:
            self.missing.discard(self._began[0])

    def ended(self, *, now: float) -> None:
        """All stages of the epoch at work are done, if one was."""
        if self._began is not None and self._whole and self._trained_s:
            self._epochs.append((now - self._began[1], self._trained_s))
        self._began = None

    def left_s(self, pace: EpochPace | None, *, now: float) -> float | None:
        """What is left of the run, by the last epochs, else by the speed of the first one."""
        if self._began is None:
            return None
        epoch, since = self._began
        after = len(self.missing - {epoch})
        if self._epochs:
            epoch_s = sum(whole for whole, _ in self._epochs) / len(self._epochs)
            beside_s = sum(whole - trained for whole, trained in self._epochs) / len(self._epochs)
        elif self._whole and self._trained_s:
            epoch_s, beside_s = self._trained_s, 0.0
        elif pace is not None and pace.whole_s is not None:
            epoch_s, beside_s = pace.whole_s, 0.0
        else:
            return None
        if epoch in self.missing:
            left = None if pace is None else pace.left_s(now)
            rest = max(0.0, epoch_s - (now - since)) if left is None else left + beside_s
        else:
            rest = max(0.0, beside_s - (now - since - self._trained_s))
        return rest + after * epoch_s


def clock_text(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`, `2 d 03:05`: of a time that is left or has gone."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
