"""What it costs to observe every sample: the same epoch with and without, in turn in one process.

`python benchmarks/sampling.py --rounds 21`: median and quartiles of the ratio over the rounds, of
wall and of processor time, on one thread. Then, by itself, the collecting of an epoch of that size,
and what a scoring pass costs next to it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from engines import Workload, ours, workloads
from torch import nn
from torch.utils.data import TensorDataset

from engine import interleaved
from epochal.data.loading.loader import validation_batches
from epochal.engine.loop import epoch as engine_epoch
from epochal.engine.loop.evaluate import score_samples
from epochal.engine.measure.observe import Observer
from epochal.engine.model.build import build_loss
from epochal.engine.model.step import DefaultStep, StepOutput

TARGETS = {"cnn32": 1.03, "digits_mlp": 1.12}
"""Workload → the ratio that is not to be exceeded."""


class Nothing(Observer):
    """Observes nobody."""

    def take(self, ids_B: np.ndarray[Any, Any], output: StepOutput, target: Any) -> None:
        """Keeps nothing."""


@contextmanager
def observing(kind: type[Observer]) -> Iterator[None]:
    """Epochs observe with `kind` inside the block."""
    before = engine_epoch.Observer
    # mypy forbids to give a class's name another class; here that is what is measured.
    engine_epoch.Observer = kind  # type: ignore[misc] # for the block alone
    try:
        yield
    finally:
        engine_epoch.Observer = before  # type: ignore[misc] # given back


def trained(work: Workload, kind: type[Observer]) -> Callable[[], None]:
    def run() -> None:
        with observing(kind):
            ours(work, work.order(0))

    return run


def collected(work: Workload) -> Callable[[], None]:
    """An epoch's calls of the observer on what the model gives, without the model."""
    model, _ = work.fresh()
    rows = torch.from_numpy(work.order(0)).split(work.batch)
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))
    model.eval()
    with torch.no_grad():
        outputs = [step(model, (work.inputs[one], work.targets[one])) for one in rows[:8]]
    ids_B = np.arange(work.batch)

    def run() -> None:
        observer = Observer()
        for number in range(len(rows)):
            output = outputs[number % len(outputs)]
            observer.take(ids_B, output, output.target)
        observer.columns()

    return run


def scored(work: Workload) -> Callable[[], None]:
    """A scoring pass over as many samples as the epoch has."""
    model, _ = work.fresh()
    rows = torch.from_numpy(work.order(0))
    dataset = TensorDataset(work.inputs[rows], work.targets[rows])
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))
    ids_N = np.arange(len(rows), dtype=np.int64)

    def run() -> None:
        batches = validation_batches(dataset, batch_size=work.batch, sample_ids_N=ids_N)
        score_samples(model, batches, step=step)

    return run


def both_clocks() -> np.ndarray[Any, Any]:
    """Wall and processor seconds, shape (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workloads", nargs="+", default=list(TARGETS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.workloads:
        work = workloads()[name]
        ways = {
            "without": trained(work, Nothing),
            "observing": trained(work, Observer),
            "the collecting alone": collected(work),
            "a scoring pass": scored(work),
        }
        found = interleaved(ways, rounds=options.rounds, clock=both_clocks)
        target = f", at most {TARGETS[name]:.2f}" if name in TARGETS else ""
        print(f"\n{name}, {work.steps} steps of {work.batch}{target}")
        print(f"  {'':22} {'us/step':>9} {'wall ratio':>11}  {'quartiles':13} {'CPU ratio':>10}")
        for way, seconds in found.items():
            ratio = seconds / found["without"]
            low, middle, high = np.quantile(ratio[:, 0], [0.25, 0.5, 0.75])
            each = np.median(seconds[:, 0]) / work.steps * 1e6
            print(
                f"  {way:22} {each:9.1f} {middle:11.3f}  {low:.3f}–{high:.3f}   "
                f"{np.median(ratio[:, 1]):10.3f}   best/best "
                f"{seconds[:, 1].min() / found['without'][:, 1].min():.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
