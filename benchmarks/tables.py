"""Sample tables at scale: write, read, update, plan and order, and 100 M samples in shards.

`python benchmarks/tables.py` measures in memory, with 1.28 M samples: the lowest wall time of
several rounds, in which all lines take turns, and the lowest processor time beside it.
`python benchmarks/tables.py shards`, of 100 M, mines two epochs under easy_skip from file
to file, each step in a process of its own, and says how much memory each took at most.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from epochal.data.config.sampling import SamplingConfig
from epochal.data.loading.order import epoch_order
from epochal.data.mining.plan import context_of, plan_epoch, updated
from epochal.data.mining.shards import mine_files
from epochal.data.policies import POLICIES
from epochal.data.samples.table import SampleTable, read_plan
from epochal.data.tables.schemas import SAMPLES, Schema
from epochal.data.tables.writing import (
    OBSERVATIONS,
    TableReader,
    TableWriter,
    read_table,
    write_table,
)

# N samples

SEVEN = Schema(
    name="seven",
    version=1,
    unique_by="sample_id",
    columns=tuple(
        one
        for one in SAMPLES.columns
        if one.name
        in {"sample_id", "loss", "confidence", "easy_streak", "correct", "keep", "weight"}
    ),
)
"""The columns that a loader and a policy need least, 24 bytes a row in memory."""
EPOCHS, SEED, CLASSES = 10, 7, 1000
SHARD = 1 << 20
STEPS = ("observe 0", "mine 0", "observe 1", "mine 1", "plan 1", "write seven", "read seven")


def observed(ids_N: np.ndarray[Any, Any], *, epoch: int) -> dict[str, np.ndarray[Any, Any]]:
    """What a model that is right about two thirds of the time sees of these samples."""
    draw = np.random.default_rng([epoch, int(ids_N[0])])
    count = len(ids_N)
    p_true = draw.beta(2, 0.4, count).astype(np.float32)
    correct = p_true > 0.5
    return {
        "sample_id": ids_N,
        "label": ids_N % CLASSES,
        "loss": -np.log(np.maximum(p_true, np.float32(1e-30))),
        "confidence": np.where(correct, p_true, 1 - p_true),
        "p_true": p_true,
        "margin": draw.normal(2, 2, count).astype(np.float32),
        "el2n": np.float32(1.2) * (1 - p_true),
        "correct": correct,
    }


def in_memory(rows: int, rounds: int, folder: Path) -> None:
    """Prints the table of one process with all arrays in memory."""
    ids = np.arange(rows, dtype=np.int64)
    config = SamplingConfig(policy="easy_skip")
    told: dict[str, Any] = {"sample_ids_N": ids, "seed": SEED}
    seen = observed(ids, epoch=0)
    paths = {
        name: folder / name for name in ("seven", "samples", "observations", "pyarrow", "mined")
    }
    write_table(seen, paths["observations"], schema=OBSERVATIONS, metadata={})

    def mine() -> None:
        mine_files(
            None, paths["observations"], paths["mined"], config, epoch=0, epochs=EPOCHS,
            metadata=lambda _: {}, **told,
        )  # fmt: skip

    mine()
    table = SampleTable(read_table(paths["mined"], schema=SAMPLES).columns)
    kept = np.flatnonzero(table["keep"])
    again = observed(ids, epoch=1)
    again = {name: column[kept] for name, column in again.items()}
    after = updated(table, again, config, epoch=1, **told)
    context = context_of(config, 2, epochs=EPOCHS, seed=SEED)
    keep = plan_epoch(after, context, config).keep_N
    seven = {one.name: table[one.name] for one in SEVEN.columns}

    def by_pyarrow() -> None:
        pq.write_table(pa.table(dict(seven)), paths["pyarrow"])

    def plan_and_order() -> None:
        keep_N = plan_epoch(after, context, config).keep_N
        epoch_order(seed=SEED, epoch=2, sample_ids_N=ids, keep_N=keep_N)

    def order_of_file() -> None:
        plan = read_plan(paths["samples"])
        epoch_order(seed=SEED, epoch=2, sample_ids_N=ids, keep_N=plan.keep_by_id(ids))

    work: dict[str, Callable[[], Any]] = {
        "seven columns, write": lambda: write_table(
            seven, paths["seven"], schema=SEVEN, metadata={}
        ),
        "seven columns, read": lambda: read_table(paths["seven"], schema=SEVEN),
        "seven columns, write by pyarrow's defaults": by_pyarrow,
        "table of samples, write": lambda: write_table(
            table.columns, paths["samples"], schema=SAMPLES, metadata={}
        ),
        "table of samples, read": lambda: read_table(paths["samples"], schema=SAMPLES),
        "observations, write": lambda: write_table(
            seen, paths["observations"], schema=OBSERVATIONS, metadata={}
        ),
        "observations, read": lambda: read_table(paths["observations"], schema=OBSERVATIONS),
        "update by a full epoch": lambda: updated(None, seen, config, epoch=0, **told),
        "update by the epoch after": lambda: updated(table, again, config, epoch=1, **told),
        "mine a full epoch, from file to file": mine,
        "plan, easy_skip": lambda: plan_epoch(after, context, config),
        "order of the kept": lambda: epoch_order(seed=SEED, epoch=2, sample_ids_N=ids, keep_N=keep),
        "plan + order": plan_and_order,
        "from the file: read the plan, order": order_of_file,
    }
    for name, one in policies(after, ids).items():
        work[f"plan, {name}"] = one
    report(measured(work, rounds))
    for name in ("seven", "samples", "observations", "pyarrow"):
        print(f"bytes a row, {name:40} {paths[name].stat().st_size / rows:8.2f}")
    print(f"kept: {keep.mean():.2f} of {rows:,}")


def policies(after: SampleTable, ids: np.ndarray[Any, Any]) -> dict[str, Callable[[], Any]]:
    """The plans of all other policies."""
    found: dict[str, Callable[[], Any]] = {}
    others = set(POLICIES) - {"none", "easy_skip", "custom"}
    settings: dict[str, dict[str, Any]] = {name: {"policy": name} for name in sorted(others)}
    settings["importance, trusted_el2n"] = {"policy": "importance", "score": "trusted_el2n"}
    for name, fields in settings.items():
        config = SamplingConfig(**fields)
        context = context_of(config, 2, epochs=EPOCHS, seed=SEED)
        more = {
            "credit": np.zeros(len(ids), np.float32),
            "easy_count": np.zeros(len(ids), np.int16),
        }
        table = after.with_columns(more)
        found[name] = lambda table=table, context=context, config=config: plan_epoch(
            table, context, config
        )
    return found


def measured(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Name → lowest wall and lowest processor seconds over the rounds."""
    best = dict.fromkeys(work, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, one in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            one()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[name] = min(best[name][0], spent[0]), min(best[name][1], spent[1])
    return best


def report(best: dict[str, tuple[float, float]]) -> None:
    print(f"{'':48} {'wall ms':>9} {'CPU ms':>9}")
    for name, (wall, cpu) in best.items():
        print(f"{name:48} {1e3 * wall:9.1f} {1e3 * cpu:9.1f}")


def shards(rows: int) -> Iterator[np.ndarray[Any, Any]]:
    for start in range(0, rows, SHARD):
        yield np.arange(start, min(rows, start + SHARD), dtype=np.int64)


def step(name: str, rows: int, folder: Path) -> dict[str, Any]:
    """One step from file to file; what it says of itself."""
    what, _, which = name.partition(" ")
    if what == "observe":
        return _observe(int(which), rows, folder)
    if what == "mine":
        return _mine(int(which), rows, folder)
    if what == "plan":
        plan = read_plan(folder / f"samples-{which}", max_rows=rows)
        ids_N = np.arange(rows, dtype=np.int64)
        order = epoch_order(seed=SEED, epoch=2, sample_ids_N=ids_N, keep_N=plan.keep_by_id(ids_N))
        return {"kept": len(order)}
    path = folder / "seven"
    names = [one.name for one in SEVEN.columns]
    if what == "write":
        source = folder / "samples-1"
        with (
            TableReader(source, schema=SAMPLES, max_rows=rows, only=names) as reader,
            TableWriter(path, schema=SEVEN, names=names, metadata={}) as writer,
        ):
            while reader.rows_taken < reader.rows:
                writer.write(reader.take(SHARD))
        return {"bytes a row": round(path.stat().st_size / rows, 2)}
    with TableReader(path, schema=SEVEN, max_rows=rows) as reader:
        while reader.rows_taken < reader.rows:
            reader.take(SHARD)
    return {}


def _observe(epoch: int, rows: int, folder: Path) -> dict[str, Any]:
    """Makes the observations of an epoch; not a step of ours, so not measured."""
    names = [one.name for one in OBSERVATIONS.columns if one.required]
    path = folder / f"observations-{epoch}"
    with TableWriter(path, schema=OBSERVATIONS, names=names, metadata={}) as writer:
        if not epoch:
            for ids_B in shards(rows):
                writer.write(observed(ids_B, epoch=epoch))
        else:
            before = folder / f"samples-{epoch - 1}"
            with TableReader(before, schema=SAMPLES, max_rows=rows, only=["keep"]) as reader:
                for ids_B in shards(rows):
                    keep_B = reader.take(len(ids_B))["keep"]
                    seen = observed(ids_B, epoch=epoch)
                    writer.write({name: column[keep_B] for name, column in seen.items()})
    return {"bytes a row": round(path.stat().st_size / rows, 2)}


def _mine(epoch: int, rows: int, folder: Path) -> dict[str, Any]:
    path = folder / f"samples-{epoch}"
    mined = mine_files(
        folder / f"samples-{epoch - 1}" if epoch else None,
        folder / f"observations-{epoch}",
        path,
        SamplingConfig(policy="easy_skip"),
        sample_ids_N=np.arange(rows, dtype=np.int64),
        epoch=epoch,
        epochs=EPOCHS,
        seed=SEED,
        metadata=lambda _: {},
    )
    return {"kept": mined.kept, "bytes a row": round(path.stat().st_size / rows, 2)}


def in_shards(rows: int, folder: Path) -> None:
    """Prints each step: in a process of its own, whose largest memory is thus that step's."""
    for name in STEPS:
        done = subprocess.run(
            [sys.executable, __file__, "--step", name, "--rows", str(rows), "--folder", folder],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        told = json.loads(done.stdout.splitlines()[-1])
        seconds, gib = told.pop("seconds"), told.pop("GiB")
        rest = ", ".join(f"{key}: {value:,}" for key, value in told.items())
        print(f"{name:12} {seconds:8.1f} s   {gib:5.2f} GiB at most   {rest}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("where", nargs="?", choices=("memory", "shards"), default="memory")
    parser.add_argument("--rows", type=int, help="1.28 M in memory, 100 M in shards")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one if left out")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    rows = asked.rows or {"memory": 1_280_000, "shards": 100_000_000}[asked.where]
    if asked.step is not None:
        started = time.perf_counter()
        told = step(asked.step, rows, asked.folder)
        told["seconds"] = time.perf_counter() - started
        told["GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        if asked.where == "shards":
            in_shards(rows, Path(folder))
        else:
            in_memory(rows, asked.rounds, Path(folder))


if __name__ == "__main__":
    main()
