"""An epoch at work, watched by the clock: what is shown while it runs, and when its updates were.

The engine knows no time; it calls `EpochWatch` after every micro-step.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from epochal.tasks.goodput.stage import StageGoodput
from epochal.tasks.reporting import Live, Reporter
from epochal.tasks.session.interruption import Interruption
from epochal.tasks.session.stage_times import StageTimes

if TYPE_CHECKING:
    from epochal.engine.loop.progress import Progress
    from epochal.tasks.checkpoints.mid_epoch_saver import MidEpochSaver

SHOW_EVERY_S = 0.2
"""Between two readings of the loss from the device: each one makes the GPU wait a little."""


class EpochWatch:
    """What `train_epoch` calls: obeys signals, commits, tells the reporter, notes the times."""

    def __init__(
        self,
        reporter: Reporter,
        interruption: Interruption,
        saver: MidEpochSaver,
        times: StageTimes,
        goodput: StageGoodput,
    ) -> None:
        self._reporter = reporter
        self._interruption = interruption
        self._saver = saver
        self._times = times
        self._goodput = goodput
        self._committing = goodput.watch.phase("commit")
        self._shown = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """After each micro-step.

        Raises NonFinite, StoreUnavailable, and what a signal that came raises, once the epoch so
        far is committed.
        """
        if self._interruption.came:
            with self._committing:
                self._saver.now(progress)
            self._interruption.obey()
        with self._committing:
            self._saver.when_due(progress)
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY_S:
            return
        self._shown = now
        self._goodput.alive()
        live = progress.live()
        if live is None:
            return
        self._times.add(live.update)
        self._reporter.live(
            Live(
                epoch=progress.epoch,
                update=live.update,
                num_updates=progress.num_updates,
                loss=live.loss,
                learning_rate=live.learning_rate,
                gradient_norm=live.gradient_norm,
            )
        )
