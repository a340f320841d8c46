"""The order of an epoch: what it costs to find a place in it, and how well it shuffles.

    python benchmarks/order.py cost --rows 100000000
    python benchmarks/order.py quality

Each cost is measured in a process of its own, whose largest size in memory is told with it.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

from epochal.data.config.batches import BatchesConfig
from epochal.data.loading.batch_sampler import sampler_order, sampler_plan
from epochal.data.loading.lazy_order import BlockOrder, GlobalOrder
from epochal.data.loading.order import Positions, epoch_order

BLOCK_ROWS = 10_000


def plan_at(kind: str, rows: int, place: int) -> None:
    """A micro-batch of 256 in the middle of an epoch, from nothing."""
    blocks_G1 = np.append(np.arange(0, rows, BLOCK_ROWS), rows) if kind == "blocks" else None
    config = BatchesConfig()
    if kind == "whole":
        order = epoch_order(seed=7, epoch=3, sample_ids_N=np.arange(rows))
    elif kind == "parts":
        order = GlobalOrder(seed=7, epoch=3, sample_ids_N=Positions(rows), keep_N=None)
    else:
        order = sampler_order(
            config, seed=7, epoch=3, sample_ids_N=Positions(rows), blocks_G1=blocks_G1
        )
    plan = sampler_plan(
        config, order, batch_size=256, accumulate=1, drop_last=False, seed=7, epoch=3
    )
    plan.slice(place * plan.num_micro_steps // 100)


def cost(rows: int, rounds: int) -> None:
    print(f"load {os.getloadavg()[0]:.1f}; {rows:,} rows, blocks of {BLOCK_ROWS:,}")
    for _ in range(rounds):
        for kind in ("blocks", "parts", "whole"):
            command = [sys.executable, __file__, "one", kind, "--rows", str(rows)]
            print(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout, end=""
            )


def one(kind: str, rows: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    begun = time.perf_counter()
    plan_at(kind, rows, place=63)
    spent = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{kind:7} {spent:6.2f} s, {peak:5.0f} MB at most, {before:.0f} MB before")


def quality(rows: int = 200_000, block: int = 1000, classes: int = 100, batch: int = 256) -> None:
    """Of data that is stored by class: what of its order is left in the epoch's."""
    labels_N = np.arange(rows) * classes // rows
    block_N = np.arange(rows) // block
    blocks_G1 = np.arange(0, rows + 1, block)
    orders = {"as stored": np.arange(rows)}
    for window in (1, 4, 8, 16, 32, 64, len(blocks_G1) - 1):
        name = f"{window} of {len(blocks_G1) - 1} blocks"
        orders[name] = BlockOrder(
            seed=7, epoch=3, sample_ids_N=Positions(rows), keep_N=None, blocks_G1=blocks_G1,
            window_blocks=window,
        )[:]  # fmt: skip
    orders["global"] = epoch_order(seed=7, epoch=3, sample_ids_N=np.arange(rows))
    print(
        "window | rank correlation | neighbours of one block | classes of a batch | entropy, bits"
    )
    for name, order in orders.items():
        rank = np.corrcoef(order, np.arange(rows))[0, 1]
        near = np.mean(block_N[order[1:]] == block_N[order[:-1]])
        shares = [
            np.bincount(labels_N[order[start : start + batch]], minlength=classes) / batch
            for start in range(0, rows - batch + 1, batch)
        ]
        entropy = np.mean([-(p[p > 0] * np.log2(p[p > 0])).sum() for p in shares])
        seen = np.mean([(p > 0).sum() for p in shares])
        print(f"{name} | {rank:+.3f} | {near:.4f} | {seen:.1f} | {entropy:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["cost", "quality", "one"])
    parser.add_argument("kind", nargs="?", choices=["blocks", "parts", "whole"])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    if given.what == "cost":
        cost(given.rows, given.rounds)
    elif given.what == "one":
        one(given.kind, given.rows)
    else:
        quality()


if __name__ == "__main__":
    main()
