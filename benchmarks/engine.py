"""Engine against loops by hand and peers: interleaved in one process, ratios per round.

    pip install -e '.[bench]'         # the peers; those that are missing are named and left out
    python benchmarks/engine.py --rounds 15
    python benchmarks/engine.py --rounds 15 --clock cpu

Prints, per workload, microseconds a step and the ratio to the raw loop with clip and norm: median
and quartiles over the rounds. Then validation, the loader in memory, and the gradient norm. The
clock is the wall's, or the CPU time of this process, which other processes disturb less: on one
thread both are the same where nothing else runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from engines import missing, our_validation, raw_validation, trainers, workloads
from torch.utils.data import TensorDataset

from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import micro_batches
from epochal.engine.loop.gradients import tensor_norms


def interleaved(
    ways: Mapping[str, Callable[[], Any]], *, rounds: int, clock: Callable[[], Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """Seconds of each way, shape (rounds,), or (rounds, 2) of a clock of two numbers.

    The order rotates, a first round is thrown away.
    """
    names = list(ways)
    seconds: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = clock()
            ways[name]()
            if number:
                seconds[name].append(clock() - started)
    return {name: np.array(one) for name, one in seconds.items()}


def told(title: str, seconds: Mapping[str, Any], *, base: str, units: int, unit: str) -> None:
    """A table of one comparison."""
    print(f"\n{title}")
    print(f"  {'':<22} {unit:>12} {'ratio':>7}  quartiles")
    for name, found in seconds.items():
        low, middle, high = np.quantile(found / seconds[base], [0.25, 0.5, 0.75])
        each = np.median(found) / units * 1e6
        print(f"  {name:<22} {each:>12,.1f} {middle:>7.3f}  {low:.3f}–{high:.3f}", flush=True)


def loader(rounds: int, clock: Callable[[], float]) -> None:
    dataset = TensorDataset(torch.randn(8192, 64), torch.randint(0, 10, (8192,)))
    order = np.random.default_rng(0).permutation(8192)
    ids = np.arange(8192, dtype=np.int64)

    def direct() -> None:
        rows = torch.from_numpy(order)
        for start in range(0, 8192, 32):
            part = rows[start : start + 32]
            _ = dataset.tensors[0][part], dataset.tensors[1][part]

    def ours() -> None:
        plan = micro_batches(order, batch_size=32)
        for _ in train_batches(dataset, plan, sample_ids_N=ids, seed=0, epoch=0):
            pass

    def torch_loader() -> None:
        for _ in torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True):
            pass

    ways = {"direct indexing": direct, "epochal": ours, "DataLoader": torch_loader}
    found = interleaved(ways, rounds=rounds, clock=clock)
    told("loader, in memory", found, base="direct indexing", units=8192, unit="us/sample")


def gradient_norm(rounds: int, clock: Callable[[], float]) -> None:
    tensors = [torch.randn(1000) for _ in range(100)]
    total = torch.nn.utils.get_total_norm

    def repeated(function: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(200):
                function()

        return run

    ways = {
        "get_total_norm": repeated(lambda: total(tensors, foreach=True)),
        "epochal": repeated(lambda: torch.linalg.vector_norm(tensor_norms(tensors))),
    }
    found = interleaved(ways, rounds=rounds, clock=clock)
    told("norm of 100 tensors x 1k", found, base="get_total_norm", units=200, unit="us/call")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workloads", nargs="+", default=list(workloads()))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    if absent := missing():
        print(
            f"not compared, since they are not installed: {', '.join(absent)}; install them by "
            f"pip install -c constraints.txt {' '.join(absent.values())}, or all by "
            "pip install -c constraints.txt -e '.[bench]'"
        )
    for name in options.workloads:
        work = workloads()[name]
        ways = {
            engine: (lambda loop=loop, work=work: loop(work, work.order(0)))
            for engine, loop in trainers().items()
        }
        found = interleaved(ways, rounds=options.rounds, clock=clock)
        told(f"{name}, batch {work.batch}", found, base="raw + clip, norm",
             units=work.steps, unit="us/step")  # fmt: skip
        checks = {
            "raw": lambda work=work: raw_validation(work),
            "epochal": lambda work=work: our_validation(work),
        }
        found = interleaved(checks, rounds=options.rounds, clock=clock)
        steps = -(-len(work.targets) // work.batch)
        told(f"{name}, validation", found, base="raw", units=steps, unit="us/batch")
    loader(options.rounds, clock)
    gradient_norm(options.rounds, clock)


if __name__ == "__main__":
    main()
