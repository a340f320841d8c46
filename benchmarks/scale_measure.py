"""What `scale_model.py measure` does: the constants of this machine, and how well they predict.

Four processes meet; the first one, two, three or all of them form a group, in turn in each round,
one thread each, gloo over loopback. Of each thing the lowest of the rounds counts, as other work on
the machine only adds to it. Constants are fitted to one and two processes.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ranks import BATCH, CLIP, MOMENTUM, RATE, network
from scale_model import ROOT, ROW, Job, Machine, gather_s, sum_s, told_s, training, validation_s
from torch import multiprocessing, nn
from torch.utils.data import TensorDataset

from epochal.data.loading.loader import train_batches, validation_batches
from epochal.data.loading.order import micro_batches
from epochal.engine.config.numerics import GradientsConfig, MetricsConfig
from epochal.engine.library import supervised_step
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.measure.metrics import build_metrics
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.exchange import join
from epochal.engine.shards.group import Group
from epochal.engine.shards.tree import added

MOST, FITTED, ROUNDS = 4, 2, 7
ACCUMULATE, UPDATES = 4, 3
VALIDATION = 8 * BATCH
FEW, MANY, ROWS, TIMES = 4096, 8_000_000, 400_000, 50
# The digits example on two processes, beside other work: an epoch's seconds between its stages
# (goodput), and from a rank's death to the next commit
ORCHESTRATION_S, START_S = 0.11, 12.8

Seconds = dict[str, dict[int, float]]
"""By what was timed and by processes, the lowest."""


def of_training(group: Group | None, state: TrainingState) -> dict[str, Callable[[], Any]]:
    """An epoch of some updates, and a validation."""
    count = BATCH * ACCUMULATE * UPDATES
    generator = torch.Generator().manual_seed(1)
    x_N, y_N = torch.randn(count, 1, 28, 28, generator=generator), torch.arange(count) % 10
    plan = micro_batches(np.arange(count), batch_size=BATCH, accumulate=ACCUMULATE)
    step = supervised_step(nn.CrossEntropyLoss)
    recipe = Recipe(
        step,
        gradients=GradientsConfig(accumulate=ACCUMULATE, shards=ACCUMULATE, clip_norm=CLIP),
    )
    metrics = build_metrics(MetricsConfig(validation=("accuracy",)), lambda _: None)

    def train() -> None:
        batches = train_batches(
            TensorDataset(x_N, y_N),
            plan,
            sample_ids_N=np.arange(count),
            seed=0,
            epoch=0,
            own=None if group is None else group.micro_batches,
        )
        train_epoch(state, batches, recipe, epoch=0, num_updates=plan.num_updates, group=group)

    def validate() -> None:
        batches = validation_batches(
            TensorDataset(x_N[:VALIDATION], y_N[:VALIDATION]),
            batch_size=BATCH,
            sample_ids_N=np.arange(VALIDATION),
            rank=0 if group is None else group.rank,
            processes=1 if group is None else group.size,
        )
        validate_epoch(state.model, batches, step=step, metrics=metrics, group=group)

    return {"train": train, "validate": validate}


def of_one() -> dict[str, Callable[[], Any]]:
    """What a process does by itself."""
    left, right, model = torch.ones(MANY), torch.ones(MANY), network()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=MOMENTUM)
    return {"add": lambda: added([left], [right]), "optimizer": optimizer.step}


def of_several(group: Group) -> dict[str, Callable[[], Any]]:
    """What processes send each other."""
    exchange = group.exchange
    head = torch.zeros(FEW + 16, dtype=torch.uint8)
    shares = [torch.ones(()) for _ in range(2 * ACCUMULATE)]
    nodes = {size: [torch.ones(size) for _ in group.own] for size in (FEW, MANY)}
    rows = torch.zeros(ROWS // group.size * ROW, dtype=torch.uint8)

    def gather() -> None:
        exchange.gather({"batches": ACCUMULATE}, shares)

    def observations() -> None:
        """To the first process, and there in order."""
        given = exchange.gather_first(None, [rows]) or []
        if given:
            index_N = torch.cat([one for _, (one,) in given])[:ROWS].numpy()
            order_N = np.argsort(index_N, kind="stable")
            for size in (8, 4, 4, 4, 4, 4, 1, 8, 4):
                np.zeros((ROWS, size), np.uint8)[order_N]

    return {
        "message": repeated(lambda: exchange._gathered(head)),  # noqa: SLF001 - a gather's part
        "gather": repeated(gather),
        "gather and told": repeated(gather, lambda: exchange.told(1)),
        "few": repeated(lambda: group.sum(nodes[FEW])),
        "many": lambda: group.sum(nodes[MANY]),
        "observations": observations,
    }


def repeated(*calls: Callable[[], Any]) -> Callable[[], None]:
    """All of them, some times."""

    def repeat() -> None:
        for _ in range(TIMES):
            for call in calls:
                call()

    return repeat


def ways(group: Group | None) -> dict[str, Callable[[], Any]]:
    """What is timed in one process of a group, or in one alone."""
    model = network()
    state = TrainingState(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM),
    )
    return of_training(group, state) | (of_one() if group is None else of_several(group))


def work(rank: int, folder: str) -> None:
    """One process; the first writes what it took."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/default", MOST)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=MOST)
    found: dict[int, dict[str, Callable[[], Any]]] = {}
    for processes in range(rank + 1, MOST + 1):
        group = None
        if processes > 1:
            meeting = dist.FileStore(f"{folder}/{processes}", processes)
            place = torch.device("cpu")
            exchange = join(meeting, rank, processes, device=place, hostname="127.0.0.1")
            group = Group(exchange, ACCUMULATE)
        found[processes] = ways(group)
    lowest: Seconds = {}
    for number in range(ROUNDS + 1):
        for processes in range(1, MOST + 1)[:: 1 if number % 2 else -1]:
            names = sorted(found[processes]) if rank < processes else []
            for place in range(8):
                dist.barrier()
                if place < len(names):
                    began = time.perf_counter()
                    found[processes][names[place]]()
                    took = time.perf_counter() - began
                    times = lowest.setdefault(names[place], {})
                    if number:
                        times[processes] = min(took, times.get(processes, math.inf))
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(lowest))
    dist.destroy_process_group()


def job_of(sample_s: float, forward_s: float) -> Job:
    """What was trained."""
    model = network()
    layers = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    return Job(
        samples=BATCH * ACCUMULATE * UPDATES,
        validation=VALIDATION,
        weights=sum(one.numel() for one in model.parameters()),
        batch=BATCH,
        accumulate=ACCUMULATE,
        shards=ACCUMULATE,
        sample_s=sample_s,
        forward_s=forward_s,
        collected=sum(2 * one.num_features for one in layers),
        outputs=4 * 10 + 12,
        state=2,
    )


def fitted(took: Seconds) -> tuple[Machine, Job]:
    """Constants by one and two processes."""
    job = job_of(0.0, took["validate"][1] / VALIDATION)
    optimizer_s = took["optimizer"][1] / job.weights
    message_s = took["message"][FITTED] / TIMES
    machine = Machine(
        message_s=message_s,
        exchange_s=max(0.0, took["gather"][FITTED] / TIMES - message_s),
        transfer_s=0.0,
        bytes_per_s=math.inf,
        add_s=took["add"][1] / MANY,
        optimizer_s=optimizer_s,
        row_s=0.0,
        orchestration_s=ORCHESTRATION_S,
        start_s=START_S,
        cores=len(os.sched_getaffinity(0)),
        one_link=True,
    )
    # What a sum takes beside its bytes, then its bytes
    few = took["few"][FITTED] / TIMES - sum_s(machine, FEW, ACCUMULATE, FITTED)
    one = sum_s(changed(machine, transfer_s=1.0, add_s=0.0), FEW, ACCUMULATE, FITTED)
    machine = changed(machine, transfer_s=few / one)
    many = took["many"][FITTED] - sum_s(machine, MANY, ACCUMULATE, FITTED)
    one = sum_s(
        changed(machine, transfer_s=0.0, add_s=0.0, bytes_per_s=1.0), MANY, ACCUMULATE, FITTED
    )
    machine = changed(machine, bytes_per_s=one / many)
    sent = ROWS * ROW * (FITTED - 1) / FITTED / machine.bytes_per_s
    machine = changed(machine, row_s=max(0.0, took["observations"][FITTED] - sent) / ROWS)
    # A step by one process, and by how much it is slower beside another
    rest = sum(training(job, machine, 1).values())
    job = job_of((took["train"][1] - rest) / job.samples, job.forward_s)
    both = training(job, machine, FITTED)
    computed = both["step"] + both["optimizer"]
    crowding = (took["train"][FITTED] - sum(both.values())) / computed
    return changed(machine, crowding=crowding), job


def changed(machine: Machine, **values: float) -> Machine:
    """The same with other constants."""
    return Machine(**{**asdict(machine), **values})


def predicted(machine: Machine, job: Job, processes: int) -> dict[str, float]:
    """What the model says of each thing that was timed."""
    gather = gather_s(machine, processes)
    few, many = (sum_s(machine, size, ACCUMULATE, processes) for size in (FEW, MANY))
    sent = ROWS * ROW * (processes - 1) / processes / machine.bytes_per_s
    return {
        "message": TIMES * (processes - 1) * machine.message_s,
        "gather": TIMES * gather,
        "gather and told": TIMES * (gather + told_s(machine, processes)),
        "few": TIMES * few,
        "many": many,
        "observations": sent + ROWS * machine.row_s,
        "train": sum(training(job, machine, processes).values()),
        "validate": validation_s(job, machine, processes),
    }


USED = {"message", "gather", "few", "many", "observations", "train"}
"""Of these the times of two processes were used."""


def checks(took: Mapping[str, Mapping[int, float]], machine: Machine, job: Job) -> list[Any]:
    """Of each thing that was not used for the fit what was measured and predicted."""
    return [
        {
            "what": what,
            "processes": processes,
            "measured_s": took[what][processes],
            "predicted_s": said,
            "ratio": said / took[what][processes],
        }
        for processes in range(FITTED, MOST + 1)
        for what, said in predicted(machine, job, processes).items()
        if processes > FITTED or what not in USED
    ]


def measure() -> dict[str, Any]:
    """Times, constants fitted to them, and what they predict of the others."""
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as folder:
        multiprocessing.spawn(work, (folder,), nprocs=MOST)
        text = Path(folder, "seconds.json").read_text()
    took = {what: {int(one): s for one, s in by.items()} for what, by in json.loads(text).items()}
    machine, job = fitted(took)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - of the one who calls
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    constants = asdict(machine)
    del constants["one_link"], constants["beside_s"]
    return {
        "commit": commit,
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "rounds": ROUNDS,
        "seconds": took,
        "constants": constants,
        "job": asdict(job),
        "checks": checks(took, machine, job),
    }
