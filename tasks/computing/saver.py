"""When an epoch commits on its way: by the clock or by updates, and when it is put down.

Training stops only while the state is copied into the buffer; the orchestration writes, hashes and
stores it. A commit that fails there ends the work at its next micro-step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from epochal.tasks.checkpoints.mid_epoch_codec import (
    encode,
    slices_in,
    state_tensors,
    whole_tensors,
)
from epochal.tasks.computing.buffer import Packed, pack, packed_size
from epochal.tasks.computing.link import Link
from epochal.tasks.computing.shared_pack import pack_slices
from epochal.tasks.config.parts import CheckpointConfig

if TYPE_CHECKING:
    from epochal.engine.loop.progress import Progress

PREPARE_AT = 0.5
"""Share of the time before the first commit after which memory for it is made, beside the work."""
BESIDE = "goodput"
"""In a commit's body: what the epoch has cost so far."""
SPARE_BYTES = 1 << 20
"""Beside the state: of what the epoch has recorded by its first commit."""


class MidEpochSaver:
    """Commits one epoch's progress when it is due.

    times: gives the pairs of `StageTimes` up to an update. updates_before: of the run, by the
    epoch's start. beside: gives what travels with a commit of so many samples, under `BESIDE`, and
    need not be equal. whole_updates: whether the epoch could go on only between two updates.
    """

    def __init__(
        self,
        link: Link,
        config: CheckpointConfig,
        *,
        times: Callable[[int], list[list[int]]],
        updates_before: int,
        beside: Callable[[int], Mapping[str, Any]],
        whole_updates: bool = False,
    ) -> None:
        self._link = link
        self._config = config
        self._times = times
        self._updates_before = updates_before
        self._beside = beside
        self._whole_updates = whole_updates
        self._prepared = False
        self._last_s = time.monotonic()
        self._last_updates = 0
        self._last_micro_steps = 0

    def is_due(self, progress: Progress) -> bool:
        """Whether it is time to, the epoch could go on from here, and no commit is under way."""
        if not self.can_commit(progress):
            return False
        share = self._share_of_interval(progress)
        if share < PREPARE_AT or not self._link.can_commit:
            return False
        if share < 1.0 and progress.updates and not self._prepared:
            # By now the optimizer has its moments. An epoch that ends earlier needs no memory.
            self._prepared = True
            size = packed_size({"partial": whole_tensors(progress.state)})
            self._link.prepare(size + SPARE_BYTES)
        return share >= 1.0

    def can_commit(self, progress: Progress) -> bool:
        """Whether the epoch could go on from here."""
        return progress.between_updates or not self._whole_updates

    def now(self, progress: Progress) -> None:
        """Commits here, unless that was done at this very micro-step."""
        if progress.micro_steps > self._last_micro_steps:
            self._commit(progress)

    def _share_of_interval(self, progress: Progress) -> float:
        """Share of the time or of the updates between two commits that is over; at 1 one is due."""
        share = (time.monotonic() - self._last_s) / self._config.every_seconds
        every = self._config.every_updates
        if every is not None:
            share = max(share, (progress.updates - self._last_updates) / every)
        return share

    def _commit(self, progress: Progress) -> None:
        group = progress.group
        if group is not None and not group.first:
            progress.gather()  # what the first process commits
            tensors = state_tensors(progress.state)
            slices = slices_in(tensors, progress.state)
            if slices:
                pack_slices(self._link.buffer, group, {"partial": tensors}, {"partial": slices}, {})
            self._last_micro_steps = progress.micro_steps
            return
        captured = progress.capture()
        tensors, body = encode(captured, progress.state)
        times = self._times(progress.updates)
        self._link.wait_for_buffer()
        files, metrics = {"partial": tensors}, captured.metrics
        slices = slices_in(tensors, progress.state)
        packed: Packed | None
        if slices:
            assert group is not None
            packed = pack_slices(self._link.buffer, group, files, {"partial": slices}, metrics)
            assert packed is not None
        else:
            packed = pack(self._link.buffer, files, metrics)
        self._prepared = True
        self._last_s, self._last_updates = time.monotonic(), progress.updates
        self._last_micro_steps = progress.micro_steps
        self._link.commit(
            micro_steps=captured.micro_steps,
            updates=captured.updates,
            updates_before=self._updates_before,
            body={
                **body,
                "num_updates": progress.num_updates,
                "anchors": times,
                BESIDE: dict(self._beside(progress.rows)),
            },
            times=times,
            packed=packed.document,
        )
