"""Processes that share updates: the ordered sum against `all_reduce`, the loop against DDP.

    python benchmarks/ranks.py sum --processes 2 --floats 25000000
    python benchmarks/ranks.py train --processes 2
    python benchmarks/ranks.py slices --processes 2

`sum`: one tensor, as the gradients of a model are summed. `train`: a CNN with BatchNorm on images
in memory, one micro-batch a process and update; a loop by hand with DistributedDataParallel (SGD
with momentum, clip and the gradient's norm) and the engine's loop, in turn in the same processes,
one thread each, gloo over loopback. `slices`: the same network, of which each process holds a part:
a loop by hand with FSDP2, the engine's, and the engine's with whole models. Prints the median ratio
of the rounds and their quartiles.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import micro_batches
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.library import supervised_step
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.exchange import join
from epochal.engine.shards.group import Group
from epochal.engine.shards.shard_state import shard_state

BATCH, UPDATES = 64, 12  # samples of a micro-batch; updates of a round
RATE, MOMENTUM, CLIP = 0.05, 0.9, 1.0


def in_turn(ways: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, all processes beginning together; a first is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds + 1):
        for name in names if number % 2 else names[::-1]:
            dist.barrier()
            started = time.perf_counter()
            ways[name]()
            dist.barrier()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ways_of_sum(exchange: Any, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """One tensor summed, each process having one shard."""
    generator = torch.Generator().manual_seed(exchange.rank)
    own = torch.randn(options.floats, generator=generator)
    shards = 1 << (exchange.size - 1).bit_length()
    group, reduced, summed = Group(exchange, shards), own.clone(), own.clone()
    zeros = [torch.zeros_like(own) for _ in group.own[1:]]
    return {
        "all_reduce": lambda: dist.all_reduce(reduced.copy_(own)),
        "in order": lambda: group.sum([summed.copy_(own), *zeros]),
    }


def network() -> nn.Module:
    """About two million weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inner, outer in ((1, 32), (32, 64), (64, 128), (128, 256)):
        layers += [
            nn.Conv2d(inner, outer, 3, stride=2, padding=1),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(256 * 4, 1024), nn.ReLU(), nn.Linear(1024, 10)
    )


def by_engine(exchange: Any, x_N: Tensor, y_N: Tensor, *, in_slices: bool = False) -> Any:
    """A function that trains for an epoch. in_slices: each process holds a part of the model."""
    size, model = exchange.size, network()
    state = TrainingState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM),
    )
    shards = 1 << (size - 1).bit_length()
    group = Group(exchange, shards, in_turns=in_slices)
    if in_slices:
        group.model = shard_state(state, exchange, device=torch.device("cpu"), shards=shards)
    plan = micro_batches(np.arange(len(y_N)), batch_size=BATCH, accumulate=size)
    recipe = Recipe(
        supervised_step(nn.CrossEntropyLoss),
        gradients=GradientsConfig(accumulate=size, shards=shards, clip_norm=CLIP),
    )

    def epoch() -> Any:
        batches = train_batches(
            TensorDataset(x_N, y_N),
            plan,
            sample_ids_N=np.arange(len(y_N)),
            seed=0,
            epoch=0,
            own=group.micro_batches,
        )
        return train_epoch(
            state, batches, recipe, epoch=0, num_updates=plan.num_updates, group=group
        )

    return epoch


def ways_of_slices(exchange: Any, _: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """An epoch of a model in slices, by hand and by the engine; and by that with whole models."""
    size, rank = exchange.size, exchange.rank
    x_N, y_N = images(size)
    by_hand = network()
    for child in by_hand:
        if any(True for _ in child.parameters()):
            fully_shard(child)
    fully_shard(by_hand)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=RATE, momentum=MOMENTUM)
    loss_of = nn.CrossEntropyLoss()

    def fsdp() -> None:
        by_hand.train()
        for update in range(UPDATES):
            start = (update * size + rank) * BATCH
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(by_hand(x_N[start : start + BATCH]), y_N[start : start + BATCH])
            loss.backward()
            nn.utils.clip_grad_norm_(by_hand.parameters(), CLIP)
            optimizer.step()

    return {
        "by hand, FSDP2": fsdp,
        "engine, slices": by_engine(exchange, x_N, y_N, in_slices=True),
        "engine, whole": by_engine(exchange, x_N, y_N),
    }


def images(size: int) -> tuple[Tensor, Tensor]:
    """Of an epoch of `size` processes, with labels."""
    count = BATCH * size * UPDATES
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 28, 28, generator=generator), torch.arange(count) % 10


def ways_of_training(exchange: Any, _: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """An epoch of some updates, by hand and by the engine."""
    size, rank = exchange.size, exchange.rank
    x_N, y_N = images(size)
    by_hand = DistributedDataParallel(network(), forward_sync_buffers=False)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=RATE, momentum=MOMENTUM)
    loss_of = nn.CrossEntropyLoss()

    def ddp() -> list[Tensor]:
        by_hand.train()
        norms = []
        for update in range(UPDATES):
            start = (update * size + rank) * BATCH
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(by_hand(x_N[start : start + BATCH]), y_N[start : start + BATCH])
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(by_hand.parameters(), CLIP))
            optimizer.step()
        return norms

    return {"by hand, DDP": ddp, "engine": by_engine(exchange, x_N, y_N)}


WAYS = {"sum": ways_of_sum, "train": ways_of_training, "slices": ways_of_slices}


def work(rank: int, folder: str, options: argparse.Namespace) -> None:
    """One process; the first prints."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/meet", options.processes)
    beside = dist.FileStore(f"{folder}/default", options.processes)
    dist.init_process_group("gloo", store=beside, rank=rank, world_size=options.processes)
    exchange = join(
        store, rank, options.processes, device=torch.device("cpu"), hostname="127.0.0.1"
    )
    seconds = in_turn(WAYS[options.what](exchange, options), rounds=options.rounds)
    if rank == 0:
        (base, first), *others = ((name, np.array(one)) for name, one in seconds.items())
        print(f"{base:<16} {np.median(first) * 1e3:10.1f} ms")
        for name, found in others:
            low, middle, high = np.quantile(found / first, [0.25, 0.5, 0.75])
            each = np.median(found) * 1e3
            print(f"{name:<16} {each:10.1f} ms   ratio {middle:.3f}  {low:.3f}–{high:.3f}")
    dist.destroy_process_group()


def main() -> None:
    """Starts the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=WAYS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--floats", type=int, default=25_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as folder:
        Path(folder).mkdir(exist_ok=True)
        multiprocessing.spawn(work, (folder, options), nprocs=options.processes)


if __name__ == "__main__":
    main()
