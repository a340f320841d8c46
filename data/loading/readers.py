"""Who reads the items: this process, threads of it, or processes; measured on the first batches.

Which it is changes no number. What is measured is read in processes that end afterwards: in this
one the data set stays as it was made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data._utils import worker as torch_worker

from epochal.data.errors import ConfigError
from epochal.data.loading.collate import Collate
from epochal.data.loading.items import ItemSource, as_it_is, in_tensors, is_thread_safe
from epochal.data.loading.order import Ids, micro_batches
from epochal.data.loading.threads import read_in_threads
from epochal.data.loading.workers import read_ahead

PREFETCH = 2
MEASURED_ROWS = 1 << 14
"""Samples that are more than enough to measure who reads."""
_MOST = 16  # readers, of however many processors
_MEASURED_S = 0.4  # of each way
_BATCH_S = 0.05  # of a micro-batch that is measured: of slow items it has fewer
_FIRST = 8  # items that tell how long one takes
_GAIN = 1.1  # by which a way is faster that needs more of the machine


@dataclass(frozen=True)
class Readers:
    """Who reads ahead: that many processes, or threads of this one; neither: nobody does.

    prefetch: micro-batches that each reads ahead. pin: put them into memory from which a CUDA
    device copies by itself.
    """

    workers: int = 0
    threads: int = 0
    prefetch: int = PREFETCH
    pin: bool = False

    def __post_init__(self) -> None:
        assert not (self.workers and self.threads)
        assert self.prefetch >= 1

    @property
    def count(self) -> int:
        """Who read at once."""
        return self.workers or self.threads or 1

    @property
    def words(self) -> str:
        """For a person."""
        if self.threads:
            return f"{self.threads} thread{'s' * (self.threads > 1)}"
        if self.workers:
            return f"{self.workers} process{'es' * (self.workers > 1)}"
        return "the training process"


HERE = Readers()


@dataclass(frozen=True)
class Measured:
    """The readers that were chosen, and of each kind that was tried the samples in a second."""

    readers: Readers
    rates: Sequence[tuple[Readers, float]]

    @property
    def words(self) -> str:
        """For a person."""
        told = ", ".join(f"{rate:,.0f} by {tried.words}" for tried, rate in self.rates)
        return f"{self.readers.words} (samples a second: {told}); changes no number"


def check_threads(dataset: Any, *, named: str) -> None:
    """Raises ConfigError if threads may not read items of the data set that is `named` so."""
    if not is_thread_safe(dataset):
        raise ConfigError(
            f"loader.threads: {named} does not say that threads may read it; set loader.workers, "
            "which are processes, in its place, or give the data set thread_safe = True if several "
            "threads may read its items at once and they draw nothing from the global generators "
            "of torch, NumPy and random"
        )


def measured_readers(
    dataset: Any,
    rows_K: npt.NDArray[np.int64],
    *,
    sample_ids_N: Ids,
    batch_size: int,
    processes: int = 1,
    threads: bool = True,
    ahead: bool = False,
    collate: Collate | None = None,
) -> Measured | None:
    """The quickest of the ways to read the data set; where two are alike, the one that needs less.

    None for a data set in tensors. rows_K: the first positions in the order in which they are read.
    processes: that share this machine's processors and read, each its part. threads: whether
    threads may read. ahead: whether reading beside the training is better even where it is no
    quicker, as on a CUDA device, which leaves the processors to it. collate: makes the batches.
    Raises TrainingFailed, naming the sample, if an item cannot be read.
    """
    if not len(rows_K) or (collate is None and in_tensors(dataset, rows_K[:0]) is not None):
        return None
    count = max(1, min(_processors() // processes, _MOST))
    ways = [HERE, Readers(workers=count)]
    if threads:
        ways.insert(1, Readers(threads=count))
    measure = _Measure(dataset, rows_K[:MEASURED_ROWS], sample_ids_N, collate)
    size = max(1, min(batch_size, int(_BATCH_S / measure.seconds_of_one())))
    rates = [measure.rate(way, size, turn, len(ways)) for turn, way in enumerate(ways)]
    tried = list(zip(ways, rates, strict=True))
    return Measured(quickest(tried, ahead=ahead), tried)


def quickest(tried: Sequence[tuple[Readers, float]], *, ahead: bool = False) -> Readers:
    """Of ways and their samples a second the quickest; one that comes later must be worth it.

    The first is this process by itself. ahead: as `measured_readers` takes it.
    """
    best, best_rate = tried[0]
    for readers, rate in tried[1:]:
        least = 1 / _GAIN if ahead and best == HERE else _GAIN
        if rate > least * best_rate:
            best, best_rate = readers, rate
    return best


def _processors() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return available or 1


class _Measure:
    def __init__(
        self,
        dataset: Any,
        rows_K: npt.NDArray[np.int64],
        sample_ids_N: Ids,
        collate: Collate | None,
    ) -> None:
        self._dataset, self._rows_K, self._ids_N = dataset, rows_K, sample_ids_N
        self._collate = collate

    def seconds_of_one(self) -> float:
        """Of one item; not of the first, at which files are opened."""
        source, count = self._source(1)
        rate = _in_a_process(_Rate(source, range(min(count, 1 + _FIRST)), HERE))
        return 1 / rate

    def rate(self, readers: Readers, size: int, turn: int, turns: int) -> float:
        """Samples a second in micro-batches of that size; each turn has some of its own."""
        source, count = self._source(size)
        measured = _Rate(source, range(turn % count, count, turns), readers)
        return size * (measured(0) if readers.workers else _in_a_process(measured))

    def _source(self, size: int) -> tuple[ItemSource, int]:
        plan = micro_batches(self._rows_K, batch_size=size, drop_last=True)
        source = ItemSource(
            self._dataset,
            plan,
            sample_ids_N=self._ids_N,
            stream=("measured",),
            collate=self._collate,
        )
        return source, plan.num_micro_steps


def _in_a_process(measured: _Rate) -> float:
    """What is measured, in a process that was forked for it."""
    with closing(read_ahead(measured, (0,), workers=1, prefetch=1, pin=False)) as found:
        rate: float = next(found)
        return rate


@dataclass(frozen=True)
class _Rate:
    """Called, it reads for a while; the number of micro-batches in a second."""

    source: ItemSource
    steps: Sequence[int]
    readers: Readers

    def __call__(self, _: int) -> float:
        # A worker of torch's stacks tensors in shared memory, which threads do not.
        torch_worker._worker_info = None  # noqa: SLF001 - there is no public way
        begun_s, done = time.perf_counter(), 0
        left_out = min(self.readers.count, len(self.steps) - 1)  # until all are at work
        with closing(self._reading()) as reading:
            for _ in reading:
                done += 1
                spent_s = time.perf_counter() - begun_s
                if done == left_out:
                    begun_s, done, left_out = time.perf_counter(), 0, -1
                elif left_out <= 0 and spent_s > _MEASURED_S:
                    break
        return done / spent_s

    def _reading(self) -> Generator[Any, None, None]:
        if self.readers.threads:
            return read_in_threads(
                self.source,
                self.steps,
                threads=self.readers.threads,
                prefetch=PREFETCH,
                ready=as_it_is,
            )
        if self.readers.workers:
            return read_ahead(
                self.source, self.steps, workers=self.readers.workers, prefetch=1, pin=False
            )
        return (self.source(step) for step in self.steps)
