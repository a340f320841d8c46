"""Writes the commits of an epoch at work: from the buffer to the store, beside the training.

The trainer has put the image of a safetensors file into the buffer. A thread writes it to a file,
with its checksum, and gives the buffer back; then it stores the file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from epochal.data.errors import StoreUnavailable
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.addresses import scheme_of
from epochal.data.store.failures import cause_of
from epochal.data.store.hashed_files import write_checksummed
from epochal.data.store.store import Store

if TYPE_CHECKING:
    import numpy.typing as npt

BLOCK_BYTES = 8 << 20
LATE = 1.5
"""Times `every_seconds`, from which on it is said how often commits really come."""


@dataclass(frozen=True)
class EpochCommit:
    """What the trainer has put into the buffer.

    body: plain JSON. image: of the file of tensors. metrics: name → float64 of shape (U,), of the
    epoch's updates so far. times: pairs (updates done in the epoch, ms since 1970).
    """

    micro_steps: int
    updates: int
    updates_before: int
    body: Mapping[str, Any]
    image: memoryview
    metrics: Mapping[str, npt.NDArray[Any]]
    times: Sequence[Sequence[int]]


class _GivenUp(Exception):
    """The epoch is done."""


@dataclass
class CommitWriter:
    """The commits of one stage, one at a time.

    identity: what a commit must have in common with the stage that goes on from it. saved: called
    in the thread for each commit that is durable. freed, done, failed: called in the thread when
    the buffer is read, and when the commit has ended, well or badly; failed only while the epoch is
    at work. resumed: whether there are commits of an earlier try.
    """

    store: Store
    key: str
    identity: Mapping[str, Any]
    saved: Callable[[EpochCommit], None]
    freed: Callable[[], None] = lambda: None
    done: Callable[[], None] = lambda: None
    failed: Callable[[], None] = lambda: None
    resumed: bool = False
    error: BaseException | None = None
    began_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0
    _thread: threading.Thread | None = None
    _over: bool = False
    _ending: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, commit: EpochCommit) -> None:
        """Writes it in a thread, after the one before."""
        self.began_s.append(time.monotonic())
        self._thread = threading.Thread(
            target=self._work, args=(commit, self._thread), name="epochal-commit", daemon=True
        )
        self._thread.start()

    def give_up(self) -> None:
        """The epoch is done: what is being written need not be, and may fail."""
        with self._ending:
            self._over = True

    def end(self, *, within_s: float | None = None) -> None:
        """Waits for the thread. Raises its error, StoreUnavailable where it takes too long."""
        if self._thread is not None:
            self._thread.join(within_s)
            if self._thread.is_alive():
                raise StoreUnavailable(
                    f"{self.store.url} did not take a commit of the epoch in the {within_s:.1f} s "
                    "that were left of checkpoint.grace_seconds; what was committed before stands, "
                    "run the same command to go on from there"
                )
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def clear(self, *, notice: Callable[[str], None], every_s: float) -> None:
        """The stage is done: its commits are deleted, and what went wrong with them is said.

        One that is still being stored is deleted by its thread.
        """
        self.give_up()
        if self.error is not None:
            error, self.error = self.error, None
            notice(f"the last commit inside the epoch failed: {cause_of(error)}")
        between_s = [later - one for one, later in pairwise(self.began_s)]
        if between_s and min(between_s) > LATE * every_s and self.longest_s > every_s:
            notice(
                f"checkpoint.every_seconds is {every_s:g}, and a commit takes up to "
                f"{self.longest_s:.0f} s here: they came every {max(between_s):.0f} s"
            )
        if (self.began_s or self.resumed) and (self._thread is None or not self._thread.is_alive()):
            MidEpochStore(self.store, self.key).clear()

    def _work(self, commit: EpochCommit, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        freed = False
        started_s = time.monotonic()
        try:
            commits = MidEpochStore(self.store, self.key)
            with self.store.scratch() as scratch:
                # A remote store reads the file again to send it; a local one takes the file itself.
                sent = scheme_of(self.store.url) != "file"
                path = scratch / "partial.safetensors"
                written = write_checksummed(path, self._blocks(commit.image), cached=sent)
                freed = True
                self.freed()
                if not self._over:
                    body = {**self.identity, **commit.body}
                    commits.commit(commit.micro_steps, written, body)
            if self._over:
                commits.clear()
            else:
                self.saved(commit)
        except _GivenUp:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            with self._ending:
                self.error = error
                if not self._over:  # else it would stop another stage
                    self.failed()
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - started_s)
            if not freed:
                self.freed()
            self.done()

    def _blocks(self, image: memoryview) -> Iterator[memoryview]:
        for start in range(0, len(image), BLOCK_BYTES):
            if self._over:
                raise _GivenUp
            yield image[start : start + BLOCK_BYTES]
