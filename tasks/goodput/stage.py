"""The stage at work, by the clock: what `goodput.json` beside its record will say.

One object for all stages of a process, so that the time between two of them belongs to one, too:
to the later one, as `orchestration`. Imports no torch: what only a device knows is handed in.
"""

from __future__ import annotations

import resource
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.tasks.goodput.sign_of_life import EVERY_S, MAX_COMMITS, Sign, SignOfLife
from epochal.tasks.goodput.stopwatch import Cause, Stopwatch
from epochal.tasks.goodput.totals import Totals, checked_totals, of_nanoseconds, with_lost

_NAME_CHARS = 16
_KIB = 1024


class StageGoodput:
    """Where the time of a process goes, stage after stage.

    signs: where it leaves signs of life for the process after it, and finds those of the one
    before; None: nowhere. watch: called by who turns to something else.

    What a killed process has lost is known as far as it has told. Its commits carry the seconds
    that went into them, and a name; its last sign (one a second, on this machine) the seconds that
    it had spent, and the names of the commits that it stood on. Where the work goes on from one of
    these, or from no commit at all, `lost` grows by the difference, which is right to a second; of
    a try that failed in this very process it is exact. Where it goes on from another commit, or
    there is no sign (another machine), nothing is added and `unknown_losses` counts one. So `lost`
    is never more than what was lost. A stage that begins anew without a sign is one that nobody has
    tried: what it may have lost is not even counted as unknown.
    """

    def __init__(self, signs: SignOfLife | None = None, *, watch: Stopwatch | None = None) -> None:
        self.signs = signs
        self.watch = watch or Stopwatch("orchestration")
        self.flops_per_sample: int | None = None
        """Of a forward and backward pass; None where they were not counted."""
        self.device_flops: float | None = None
        """That the device can do in a second, by its maker's figure; None where it is not known."""
        self.device_bytes: Callable[[], int | None] = lambda: None
        """Gives the peak of the device's memory in this stage."""
        self.restart_device_bytes: Callable[[], None] = lambda: None
        """From here on `device_bytes` gives the peak of what comes now."""
        self._key: str | None = None
        self._handed_over = False
        self._commits: tuple[str, ...] = ()
        self._last: Sign | None = None
        self._before = Totals()
        self._rows_before = self._rows = 0
        self._signed = monotonic()

    def begin(self, key: str, cause: Cause) -> None:
        """A stage begins; what went by since the last one was committed belongs to it.

        cause: what its time is for where nobody says more.
        """
        self.watch.switch(cause)
        self.restart_device_bytes()
        if self._last is None and self.signs is not None:
            self._last = self.signs.read()
        if self._last is not None and self._last.key != key:
            self._last = None
        self._before = Totals() if self._last is None else self._after(Totals(), self._last)
        self._key, self._commits, self._handed_over = key, (), False
        self._rows_before = self._rows = 0
        if self._last is None:  # else the sign of the process before stands until there is more
            self._sign()

    def go_on(self, carried: Any, *, rows: int) -> None:
        """The stage goes on from a commit inside it.

        carried: what `carry` gave for it, or None. rows: samples that were trained on before it.
        """
        before, name = _carried(carried)
        known = self._last is not None and name in self._last.commits
        self._before = self._after(before, self._last if known else None)
        self._commits = (name,) if name else ()
        self._rows_before = self._rows = rows
        self._sign()

    def _after(self, before: Totals, last: Sign | None) -> Totals:
        """What is known at the start of this try. last: what the last one told, if it is known.

        What a commit carries was counted when it began; the rest of it is no work that was lost.
        """
        if last is None:
            return with_lost(before, None)
        committed = max(0.0, last.commit_seconds - before.seconds.get("commit", 0.0))
        lost = last.seconds - before.wall_seconds - committed
        before = replace(before, resumed=last.resumed, unknown_losses=last.unknown_losses)
        return with_lost(before, lost, commit_seconds=committed)

    def hand_over(self) -> None:
        """Another process goes on with the stage, and counts its time itself, lost time too."""
        self._handed_over = True
        self._before += of_nanoseconds(self.watch.restart())

    def take_back(self, body: Any) -> None:
        """The stage comes back. body: what it has cost there, as `ended` gives it."""
        self.watch.restart()
        self._before += checked_totals(body)

    def carry(self, rows: int) -> dict[str, Any]:
        """What travels with a commit inside the epoch, beside what must be equal.

        rows: samples that were trained on so far.
        """
        self._rows = rows
        name = uuid.uuid4().hex[:_NAME_CHARS]
        self._commits = (*self._commits, name)[-MAX_COMMITS:]
        return {"commit": name, **self._so_far().body()}

    def alive(self) -> None:
        """Leaves a sign of life, if the last one is a second old."""
        if monotonic() - self._signed >= EVERY_S:
            self._sign()

    def trained(self, rows: int) -> None:
        """The epoch has trained on all of its `rows` samples."""
        self._rows = rows

    def ended(self) -> dict[str, Any]:
        """The body of `goodput.json`. What is still done for the stage counts for the next one."""
        body = self._so_far().body()
        self.watch.restart()
        self._key, self._last = None, None
        if self.signs is not None:
            self.signs.end()
        return body

    def failed(self) -> None:
        """The stage has failed; from here on the time goes by waiting for the next try.

        What it has spent is the next try's to count, as lost.
        """
        if self._key is not None:
            self._last = None if self._handed_over else self._sign()
            self.watch.restart()
        self._key = None
        self.watch.switch("waiting")

    def _sign(self) -> Sign | None:
        self._signed = monotonic()
        if self._key is None:
            return None
        own = of_nanoseconds(self.watch.spent_ns())
        sign = Sign(
            self._key,
            self._before.wall_seconds + own.wall_seconds,
            self._before.seconds.get("commit", 0.0) + own.seconds.get("commit", 0.0),
            self._commits,
            self._before.resumed,
            self._before.unknown_losses,
        )
        if self.signs is not None:
            self.signs.write(sign)
        return sign

    def _so_far(self) -> Totals:
        own = of_nanoseconds(self.watch.spent_ns())
        own = replace(
            own,
            samples=self._rows - self._rows_before,
            peak_host_bytes=peak_host_bytes(),
            peak_child_bytes=peak_child_bytes(),
            peak_device_bytes=self.device_bytes(),
        )
        if own.samples and self.flops_per_sample and self.device_flops:
            own = replace(
                own,
                flops=float(self.flops_per_sample * own.samples),
                possible_flops=self.device_flops * own.loop_seconds,
            )
        return self._before + own


def _carried(carried: Any) -> tuple[Totals, str]:
    """Totals and name of a commit; none of either where it has none that can be read."""
    name = carried.get("commit") if isinstance(carried, dict) else None
    try:
        return (checked_totals(carried), name) if isinstance(name, str) else (Totals(), "")
    except CorruptObject:  # of a version that counts otherwise: the loss is then not known
        return Totals(), ""


def peak_host_bytes() -> int | None:
    """The most memory that this process has had since it began; None where that is not told."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").split("\n")
        # Unlike ru_maxrss it is not that of the parent which this process was forked from.
        return next(int(one.split()[1]) * _KIB for one in lines if one.startswith("VmHWM"))
    except (OSError, StopIteration):
        return _max_rss(resource.RUSAGE_SELF)


def peak_child_bytes() -> int | None:
    """The most memory of the largest child process that has ended; None where none has."""
    return _max_rss(resource.RUSAGE_CHILDREN)


def _max_rss(who: int) -> int | None:
    peak = resource.getrusage(who).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else _KIB) or None
