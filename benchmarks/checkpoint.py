"""Commits inside epochs against `torch.save` of the same state, in turn in one process.

How long training stands still for a commit, how long it takes until the commit is durable (hash
included), and what one costs the training that goes on beside its writing. Run it on a machine
with nothing else to do. Niceness does not shield it: Linux weighs it only among the processes of
one session (autogroup) and of one control group. Beside other work, ratios of one round still
compare like with like; seconds do not.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from epochal.data.store.hashed_files import write_checksummed, write_hashed
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.data.types import Batch, Window
from epochal.engine import Progress, Recipe, TrainingState, supervised_step, train_epoch
from epochal.engine.checkpoint.safetensors_file import safetensors_pieces
from epochal.tasks.checkpoints.commit_writer import CommitWriter
from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.config.parts import CheckpointConfig
from epochal.tasks.launch.inline import InlineTrainer
from epochal.tasks.reporting import SilentReporter
from epochal.tasks.trainer.interruption import Interruption

WIDTH = 1024
BYTES_PER_WEIGHT = 12  # float32 and AdamW's two moments
INTERVAL_S = 60.0
WAYS: dict[str, Callable[[Path, Iterable[bytes | memoryview]], object]] = {
    "xxh3, past the cache": write_checksummed,
    "xxh3, page cache": partial(write_checksummed, cached=True),
    "sha256, page cache": write_hashed,
}
MAX_BLOCKED, MIN_THROUGHPUT, MAX_LOST = 0.35, 0.8, 0.01


@dataclass
class Rounds:
    """Seconds of each round, by what was timed; and of each pair of windows of training."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    windows: list[tuple[float, float]] = field(default_factory=list)
    outlasted: int = 0

    def add(self, times: dict[str, float]) -> None:
        """Notes one round."""
        for name, seconds in times.items():
            self.seconds.setdefault(name, []).append(seconds)

    def shown(self, name: str) -> str:
        """Median and range."""
        found = self.seconds[name]
        return f"{statistics.median(found):6.3f} s  ({min(found):.3f}–{max(found):.3f})"

    def ratio(self, one: str, other: str) -> float:
        """Median over the rounds of one time to another of the same round."""
        pairs = zip(self.seconds[one], self.seconds[other], strict=True)
        return statistics.median(first / second for first, second in pairs)


def new_state(megabytes: int) -> TrainingState:
    """Layers with AdamW whose weights and moments have about that many bytes."""
    layers = max(1, round(megabytes * 1e6 / BYTES_PER_WEIGHT / (WIDTH * WIDTH)))
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    return TrainingState(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4))


def train(
    state: TrainingState, updates: int, batch_size: int, watch: Callable[[Progress], None]
) -> None:
    """That many updates on random samples; `watch` is called after each."""
    input_BD, target_B = torch.randn(batch_size, WIDTH), torch.zeros(batch_size, dtype=torch.long)
    ids_B = torch.arange(batch_size).numpy()
    window = Window(num_samples=batch_size, last=True)

    def batches() -> Iterator[Batch]:
        for index in range(updates):
            yield Batch(data=(input_BD, target_B), sample_ids_B=ids_B, window=window, index=index)

    train_epoch(
        state,
        batches(),
        Recipe(supervised_step(nn.CrossEntropyLoss), seed=1),
        epoch=0,
        num_updates=updates,
        on_progress=watch,
    )


class Commits:
    """Both halves of commits inside an epoch: who copies, and who writes beside the training."""

    def __init__(self, store: Store, key: str, config: CheckpointConfig, buffer: Buffer) -> None:
        given: Any = SimpleNamespace(checkpoint=config)
        trainer = InlineTrainer(given, store, SilentReporter(), Interruption(), buffer)
        self._writer = CommitWriter(store, key, {}, saved=lambda _: None)
        trainer.attach(self._writer)
        self._saver = MidEpochSaver(
            trainer.worker.link,
            config,
            times=lambda _: [[0, 0]],
            updates_before=0,
            beside=lambda _: {},
        )
        self.when_due = self._saver.when_due

    def wait(self) -> None:
        """Until the commit is durable."""
        self._writer.end()

    def clear(self) -> None:
        """Deletes the commits."""
        self._writer.clear(notice=print, every_s=1e9)


class Bench:
    """One state, a store and a folder on the same disk."""

    def __init__(self, megabytes: int, folder: Path) -> None:
        self.folder = folder
        self.state = new_state(megabytes)
        self.buffer = Buffer()
        self.rounds = Rounds()
        self._key = "a" * 64
        self._durable_s = 0.0

    def saver(self, every_updates: int) -> Commits:
        """What the train stage makes, with commits so many updates apart."""
        store = open_store(f"file://{self.folder}/store")
        put_new = store.put_new

        def put(path: str, source: bytes | Path) -> None:
            put_new(path, source)
            self._durable_s = time.perf_counter()  # the last one is that of the manifest

        # Timed from inside on this one store: a wrapper would be another path than training's.
        store.put_new = put  # type: ignore[method-assign]
        config = CheckpointConfig(every_updates=every_updates, every_seconds=1e9)
        return Commits(store, self._key, config, self.buffer)

    def in_turn(self, rounds: int) -> None:
        """A commit and a `torch.save` after every second update, one after the other."""
        saver = self.saver(2)

        def watch(progress: Progress) -> None:
            if progress.updates % 2:
                saver.when_due(progress)  # before the first commit: makes its buffers
                saver.wait()
                return
            sides = [lambda: self._ours(saver, progress), self._torch]
            times: dict[str, float] = {}
            for side in sides[:: 1 if progress.updates % 4 else -1]:
                os.sync()  # what the other side left to be written
                times |= side()
            self.rounds.add(times)

        train(self.state, 2 * rounds, 1, watch)
        saver.clear()

    def ways_to_write(self, rounds: int) -> None:
        """Processor time of one file of the state, written in each way, in turn."""
        path = self.folder / "written"
        tensors = {str(index): one for index, one in enumerate(_tensors(self.state))}
        for _ in range(rounds):
            times = {}
            for name, write in WAYS.items():
                os.sync()
                began_s = time.process_time()
                write(path, safetensors_pieces(tensors))
                times[name] = time.process_time() - began_s
                path.unlink()
            self.rounds.add(times)

    def _ours(self, saver: Commits, progress: Progress) -> dict[str, float]:
        began, cpu_s = time.perf_counter(), time.process_time()
        saver.when_due(progress)
        blocked = time.perf_counter()
        saver.wait()
        return {
            "blocked": blocked - began,
            "durable": self._durable_s - began,
            "processor": time.process_time() - cpu_s,
        }

    def _torch(self) -> dict[str, float]:
        path = self.folder / "state.pt"
        optimizer = self.state.optimizer.state_dict()
        began, cpu_s = time.perf_counter(), time.process_time()
        torch.save({"model": self.state.model.state_dict(), "optimizer": optimizer}, path)
        saved = time.perf_counter()
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        durable, cpu_s = time.perf_counter(), time.process_time() - cpu_s
        path.unlink()
        return {
            "torch.save": saved - began,
            "torch.save + fsync": durable - began,
            "processor, of that": cpu_s,
        }

    def beside_training(self, pairs: int, window: int, batch_size: int) -> None:
        """Windows of training; every second one begins with a commit."""
        saver = self.saver(2 * window)
        began: list[float] = []

        def watch(progress: Progress) -> None:
            if progress.updates % window == 0:
                began.append(time.perf_counter())
                self.rounds.outlasted += progress.updates % (2 * window) > 0 and _writes()
            saver.when_due(progress)

        train(self.state, 2 * (1 + pairs) * window, batch_size, watch)
        saver.wait()
        saver.clear()
        # The first window warms up, and has no commit before it.
        lasted = [end - begin for begin, end in pairwise(began)][1:]
        self.rounds.windows = list(zip(lasted[::2], lasted[1::2], strict=False))


def _writes() -> bool:
    return any(one.name == "epochal-commit" for one in threading.enumerate())


def report(rounds: Rounds) -> None:
    """The table of the rounds, and how the targets were met."""
    print(f"  {len(rounds.seconds['blocked'])} rounds")
    for name in (
        "blocked", "torch.save", "durable", "torch.save + fsync", "processor", "processor, of that",
    ):  # fmt: skip
        print(f"  {name:<20} {rounds.shown(name)}")
    blocked = rounds.ratio("blocked", "torch.save")
    _say("blocked / torch.save", blocked, "at most", MAX_BLOCKED, met=blocked <= MAX_BLOCKED)
    faster = rounds.ratio("torch.save + fsync", "durable")
    name = "throughput until durable / that of torch.save + fsync"
    _say(name, faster, "at least", MIN_THROUGHPUT, met=faster >= MIN_THROUGHPUT)


def report_ways(rounds: Rounds) -> None:
    """What a file costs the processor, by how it is written."""
    print("  processor time of a file of the state")
    for name in WAYS:
        print(f"  {name:<20} {rounds.shown(name)}", flush=True)


def report_windows(rounds: Rounds, *, window: int) -> None:
    """What a commit costs the training beside it."""
    extra = [one - other for one, other in rounds.windows]
    plain = statistics.median(other for _, other in rounds.windows)
    cost = statistics.median(extra)
    print(
        f"  a commit costs {cost:.3f} s of training ({min(extra):.3f}–{max(extra):.3f}; "
        f"{len(extra)} pairs of windows of {window} updates, {plain:.2f} s without)"
    )
    lost = cost / INTERVAL_S
    _say(f"of {INTERVAL_S:.0f} s", lost, "at most", MAX_LOST, met=lost <= MAX_LOST)
    if rounds.outlasted:
        print(f"  {rounds.outlasted} commits outlasted their window: give a larger --window")


def _tensors(state: TrainingState) -> Iterator[torch.Tensor]:
    yield from state.model.state_dict().values()
    for slots in state.optimizer.state.values():
        yield from (one for one in slots.values() if isinstance(one, torch.Tensor))


def _say(name: str, value: float, bound: str, target: float, *, met: bool) -> None:
    verdict = "met" if met else "MISSED"
    print(f"  {name}: {value:.3g}, {bound} {target}: {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=10, help="of windows; 0: none")
    parser.add_argument("--window", type=int, default=12, help="updates in a window")
    parser.add_argument("--batch-size", type=int, default=64, help="of the training in windows")
    parser.add_argument("--folder", type=Path, help="where to write; none: the temporary folder")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    for megabytes in options.megabytes:
        folder = Path(tempfile.mkdtemp(prefix="epochal-bench-", dir=options.folder))
        try:
            bench = Bench(megabytes, folder)
            bench.in_turn(options.rounds)
            size = sum(one.nbytes for one in _tensors(bench.state))
            print(f"state of {size / 1e6:.0f} MB")
            report(bench.rounds)
            bench.ways_to_write(options.rounds)
            report_ways(bench.rounds)
            if options.pairs:
                bench.beside_training(options.pairs, options.window, options.batch_size)
                report_windows(bench.rounds, window=options.window)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
