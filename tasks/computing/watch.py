"""An epoch at work, watched by the clock: what is shown while it runs, and when its updates were.

The engine knows no time; it calls `EpochWatch` after every micro-step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from epochal.tasks.computing.link import Link, PutDown
from epochal.tasks.computing.stage_times import StageTimes
from epochal.tasks.goodput.stage import StageGoodput
from epochal.tasks.reporting import Live

if TYPE_CHECKING:
    from epochal.engine.loop.progress import Progress
    from epochal.tasks.computing.saver import MidEpochSaver

_COMMIT, _PUT_DOWN, _STOP = 1, 2, 3
SHOW_EVERY_S = 0.2
"""Between two readings of the loss from the device: each one makes the GPU wait a little."""


class PassWatch:
    """What is called after each batch of a pass without updates: tells how far it is.

    what: "batches of validation", of which there are `total`. after: called then, and may raise.
    """

    def __init__(self, link: Link, what: str, total: int, *, after: Callable[[], None]) -> None:
        self._link = link
        self._what = what
        self._total = total
        self._after = after
        self._done = 0
        self._shown = time.monotonic()

    def __call__(self) -> None:
        """After each batch."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            self._link.report("counted", what=self._what, done=self._done, total=self._total)
        self._after()


class EpochWatch:
    """What `train_epoch` calls: commits, tells how far it is, notes the times, is put down."""

    def __init__(
        self, link: Link, saver: MidEpochSaver, times: StageTimes, goodput: StageGoodput
    ) -> None:
        self._link = link
        self._saver = saver
        self._times = times
        self._goodput = goodput
        self._committing = goodput.watch.phase("commit")
        self._shown = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """After each micro-step.

        Raises NonFinite, and PutDown where that was asked for, once the epoch so far is on its way
        to the store. Processes of a group do what the first one decides, between two updates.
        """
        group = progress.group
        if group is not None and not progress.between_updates:
            return
        decided = self._decision(progress)
        if group is not None:
            decided = group.exchange.told(decided)
        if decided:
            if decided != _STOP:
                with self._committing:
                    self._saver.now(progress)
            if decided != _COMMIT:
                raise PutDown
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY_S:
            return
        self._shown = now
        self._goodput.alive()
        live = progress.live()
        if live is None:
            self._link.alive()
            return
        self._times.add(live.update)
        if group is not None and not group.first:
            return
        self._link.live(
            Live(
                epoch=progress.epoch,
                update=live.update,
                num_updates=progress.num_updates,
                loss=live.loss,
                learning_rate=live.learning_rate,
                gradient_norm=live.gradient_norm,
                samples=progress.rows,
            )
        )

    def _decision(self, progress: Progress) -> int:
        if self._link.stopped:
            return _STOP
        if self._link.interrupted and self._saver.can_commit(progress):
            return _PUT_DOWN
        with self._committing:
            return _COMMIT if self._saver.is_due(progress) else 0
