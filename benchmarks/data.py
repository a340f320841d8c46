"""Reading data, against what a user would take instead: `python benchmarks/data.py`.

`memory`: tensors, against indexing them. `jpeg`: 4,000 images of 224 x 224 and some 19 kB from a
folder, shuffled, in batches of 32, against torch's DataLoader with two workers that stay, and
SPDL's pipeline with two threads, all with the same decoder. `parquet`: the same images, as the
hub has them, against the folder. `s3`: images on an S3 server in another process, against a read
for each file. `beside`: a training loop beside one reader. `bound`: the memory of 100,000 samples
that are read ahead. Ways take turns, each round a whole epoch; a line has the median over the
rounds of the ratio to the first way in the same round, and its lowest and highest. Beside it the
processor time of a sample, of all processes, and the share of the processors that other work on the
machine took meanwhile: with `--tries N` a way is measured again in its round, up to N times, while
that is above a twentieth.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_made import BUCKET, SIDE, Made, s3_server, write_folder, write_parquet
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset, default_collate

from epochal.data.datasets.image_folder import image_folder
from epochal.data.datasets.parquet_images import parquet_images
from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import MicroBatchPlan, epoch_order, micro_batches
from epochal.data.loading.readers import HERE, Readers

RESULTS = Path(__file__).parent / "results" / "data.json"
BATCH = 32
IMAGES = 4000
S3_IMAGES = 1000
WINDOW_BLOCKS = 8
SMALL_STEPS = 6000
QUIET = 0.05
AHEAD = 4  # micro-batches that each thread or worker may have ready
TARGETS = {
    "memory: epochal": "at most 1.2 of direct indexing's time",
    "jpeg: DataLoader, 2 workers": "ours at least 1.15 times as fast",
    "jpeg: SPDL, 2 threads": "ours at least 0.95 times as fast",
    "parquet: folder": "ours at least as fast",
    "s3: a read for each file": "ours at least 5 times as fast",
}


# --- who reads it --------------------------------------------------------------------------------


def plan_of(dataset: Any, epoch: int) -> MicroBatchPlan:
    """Shuffled: all samples, or where they lie in blocks the blocks, and rows within eight."""
    ids_N = np.arange(len(dataset))
    order = epoch_order(seed=7, epoch=epoch, sample_ids_N=ids_N)
    if (blocks_G1 := getattr(dataset, "blocks", None)) is not None:
        lot_G = epoch_order(seed=8, epoch=epoch, sample_ids_N=np.arange(len(blocks_G1) - 1))
        window_G = np.empty_like(lot_G)
        window_G[lot_G] = np.arange(len(lot_G)) // WINDOW_BLOCKS
        window_N = np.repeat(window_G, np.diff(blocks_G1))
        order = order[np.argsort(window_N[order], kind="stable")]
    return micro_batches(order, batch_size=BATCH)


class Epochs:
    """Each call is the next epochs of a data set; `batches` says how it is read."""

    def __init__(
        self,
        dataset: Any,
        batches: Callable[[Any, MicroBatchPlan], Iterable[Any]],
        *,
        count: int = 1,
    ) -> None:
        self._dataset, self._batches, self._count = dataset, batches, count
        self._plans = [plan_of(dataset, epoch) for epoch in range(4)]
        self._epoch = 0

    def __call__(self) -> None:
        """Reads them."""
        for _ in range(self._count):
            self._epoch += 1
            for _ in self._batches(self._dataset, self._plans[self._epoch % len(self._plans)]):
                pass


def ours(readers: Readers) -> Callable[[Any, MicroBatchPlan], Iterable[Any]]:
    def batches(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
        ids_N = np.arange(len(dataset))
        return train_batches(dataset, plan, sample_ids_N=ids_N, readers=readers, seed=7, epoch=0)

    return batches


class _Given:
    """A batch sampler of torch's that stays while plans come and go."""

    plan: MicroBatchPlan

    def __iter__(self) -> Iterator[list[int]]:
        steps = range(self.plan.num_micro_steps)
        return (self.plan.slice(step).tolist() for step in steps)

    def __len__(self) -> int:
        return self.plan.num_micro_steps


def torchs(workers: int) -> Callable[[Any, MicroBatchPlan], Iterable[Any]]:
    made: dict[int, Any] = {}
    given = _Given()
    more: dict[str, Any] = {}
    if workers:
        more = {"persistent_workers": True, "prefetch_factor": AHEAD}

    def batches(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
        given.plan = plan
        if not made:
            made[0] = DataLoader(dataset, batch_sampler=given, num_workers=workers, **more)
        return iter(made[0])

    return batches


def spdls(threads: int) -> Callable[[Any, MicroBatchPlan], Iterable[Any]]:
    from spdl.pipeline import PipelineBuilder

    def batches(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
        def read(step: int) -> Any:
            return default_collate(dataset.__getitems__(plan.slice(step).tolist()))

        pipeline = (
            PipelineBuilder()
            .add_source(range(plan.num_micro_steps))
            .pipe(read, concurrency=threads, output_order="input")
            .add_sink(AHEAD * threads)
            .build(num_threads=threads)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return batches


def by_hand(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
    """Without any reading ahead."""
    for step in range(plan.num_micro_steps):
        yield default_collate([dataset[position] for position in plan.slice(step).tolist()])


# --- measuring -----------------------------------------------------------------------------------


def clock() -> np.ndarray[Any, Any]:
    """Seconds by the wall, and of all processors, in this process and those that it started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    processors_s = time.process_time() + ended.ru_utime + ended.ru_stime + _seconds_of_children()
    return np.array([time.perf_counter(), processors_s])


def _seconds_of_children() -> float:
    ticks = 0
    for child in children():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children() -> list[int]:
    """Processes that this one has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def all_s() -> float:
    """Processor seconds that all processes of the machine have taken since it began."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def timed(way: Callable[[], None], *, tries: int) -> tuple[np.ndarray[Any, Any], float]:
    """Seconds by `clock`, and the share of the processors that others took meanwhile.

    Of several tries the first one of which others took less than a twentieth, else the least
    disturbed.
    """
    found = []
    for _ in range(tries):
        machine_s, begun = all_s(), clock()
        way()
        spent = clock() - begun
        share = max(0.0, all_s() - machine_s - spent[1]) / spent[0] / (os.cpu_count() or 1)
        found.append((spent, share))
        if share < QUIET:
            break
    return min(found, key=lambda one: one[1])


def measure(
    title: str,
    ways: Mapping[str, Callable[[], None]],
    *,
    samples: int,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Prints a table of the ways, the first of which is ours; gives it for the file of results."""
    names, rounds = list(ways), options.rounds
    spent: dict[str, list[Any]] = {name: [] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in names}
    load = [os.getloadavg()[0]]
    for number in range(rounds + 1):  # the first is thrown away
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds_2, share = timed(ways[name], tries=options.tries if number else 1)
            if number:
                spent[name].append(seconds_2)
                shares[name].append(share)
    load.append(os.getloadavg()[0])
    seconds = {name: np.array(one) for name, one in spent.items()}
    base, rows = seconds[names[0]], {}
    print(f"\n{title}; load {load[0]:.1f} to {load[1]:.1f}, {rounds} rounds")
    columns = f"{'time to ours':>22} {'processor us':>13} {'to ours':>8} {'others':>7}"
    print(f"  {'':<30} {'samples/s':>10} {columns}")
    for name, found in seconds.items():
        ratio, processor = found[:, 0] / base[:, 0], found[:, 1] / base[:, 1]
        rows[name] = {
            "samples_per_s": round(float(samples / np.median(found[:, 0])), 1),
            "time_to_ours": [round(float(np.quantile(ratio, q)), 3) for q in (0.5, 0, 1)],
            "processor_us": round(float(np.median(found[:, 1]) / samples * 1e6), 1),
            "processor_to_ours": [round(float(np.quantile(processor, q)), 3) for q in (0.5, 0, 1)],
            "share_of_others": round(float(np.median(shares[name])), 3),
        }
        middle, low, high = rows[name]["time_to_ours"]
        print(
            f"  {name:<30} {rows[name]['samples_per_s']:>10,.0f} "
            f"{f'{middle:.2f} ({low:.2f}–{high:.2f})':>22} "
            f"{rows[name]['processor_us']:>13,.1f} {rows[name]['processor_to_ours'][0]:>8.2f} "
            f"{np.median(shares[name]):>7.0%}",
            flush=True,
        )
    return {"load": load, "rounds": rounds, "samples": samples, "ways": rows}


# --- the parts -----------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> dict[str, Any]:
    count, epochs = 8192, 20
    dataset = TensorDataset(torch.randn(count, 64), torch.randint(0, 10, (count,)))

    def direct(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
        order = torch.from_numpy(plan.order_K)
        for start in range(0, count, BATCH):
            index = order[start : start + BATCH]
            yield dataset.tensors[0][index], dataset.tensors[1][index]

    ways = {
        "epochal": Epochs(dataset, ours(HERE), count=epochs),
        "direct indexing": Epochs(dataset, direct, count=epochs),
        "DataLoader, 0 workers": Epochs(dataset, torchs(0), count=epochs),
    }
    return measure(
        "in memory, 8,192 x 64 numbers",
        ways,
        samples=count * epochs,
        options=options,
    )


def jpeg(options: argparse.Namespace) -> dict[str, Any]:
    folder = options.folder / "jpeg"
    write_folder(folder, IMAGES)
    dataset = image_folder(str(folder), extensions=[".jpg"], dtype="uint8")
    ways = {
        "epochal, 2 threads": Epochs(dataset, ours(Readers(threads=2, prefetch=AHEAD))),
        "DataLoader, 2 workers": Epochs(dataset, torchs(2)),
        "SPDL, 2 threads": Epochs(dataset, spdls(2)),
        "epochal, 2 workers": Epochs(dataset, ours(Readers(workers=2, prefetch=AHEAD))),
        "epochal, 0 workers": Epochs(dataset, ours(HERE)),
        "by hand": Epochs(dataset, by_hand),
    }
    return measure("JPEG, 224 x 224", ways, samples=IMAGES, options=options)


def parquet(options: argparse.Namespace) -> dict[str, Any]:
    folder, file = options.folder / "jpeg", options.folder / "images.parquet"
    write_folder(folder, IMAGES)
    write_parquet(folder, file, IMAGES)
    rows, files = (
        parquet_images(str(file), dtype="uint8"),
        image_folder(str(folder), extensions=[".jpg"], dtype="uint8"),
    )
    ways = {
        "Parquet, 2 threads": Epochs(rows, ours(Readers(threads=2))),
        "folder, 2 threads": Epochs(files, ours(Readers(threads=2))),
        "Parquet, 2 workers": Epochs(rows, ours(Readers(workers=2))),
        "folder, 2 workers": Epochs(files, ours(Readers(workers=2))),
    }
    return measure("Parquet images", ways, samples=IMAGES, options=options)


def s3(options: argparse.Namespace) -> dict[str, Any]:
    folder, local = options.folder / "jpeg", options.folder / "some.parquet"
    write_folder(folder, IMAGES)
    write_parquet(folder, local, S3_IMAGES)
    with s3_server() as put:
        for file in sorted(folder.glob("*/*.jpg"))[:S3_IMAGES]:
            put(f"jpeg/{file.parent.name}/{file.name}", file.read_bytes())
        put("images.parquet", local.read_bytes())
        files = image_folder(f"s3://{BUCKET}/jpeg", extensions=[".jpg"], dtype="uint8")
        rows = parquet_images(f"s3://{BUCKET}/images.parquet", dtype="uint8")
        ways = {
            "Parquet, 2 threads": Epochs(rows, ours(Readers(threads=2))),
            "Parquet, 2 workers": Epochs(rows, ours(Readers(workers=2))),
            "folder, 2 threads": Epochs(files, ours(Readers(threads=2))),
            "a read for each file": Epochs(files, one_by_one(f"{BUCKET}/jpeg")),
        }
        return measure(
            "JPEG on S3",
            ways,
            samples=S3_IMAGES,
            options=options,
        )


def one_by_one(root: str) -> Callable[[Any, MicroBatchPlan], Iterable[Any]]:
    """As a data set by hand does it: s3fs, a file at a time."""
    import s3fs

    files = s3fs.S3FileSystem()

    def item(dataset: Any, position: int) -> Any:
        with Image.open(io.BytesIO(files.cat_file(f"{root}/{dataset.path_of(position)}"))) as image:
            pixels = np.asarray(image.convert("RGB"))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), int(dataset.targets[position])

    def batches(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
        for step in range(plan.num_micro_steps):
            yield default_collate([item(dataset, at) for at in plan.slice(step).tolist()])

    return batches


def beside(options: argparse.Namespace) -> dict[str, Any]:
    """Training whose steps are many small operations, as a GPU is fed, while one reader reads."""
    folder = options.folder / "jpeg"
    write_folder(folder, IMAGES)
    dataset = Subset(
        image_folder(str(folder), extensions=[".jpg"], dtype="uint8"), range(IMAGES // 4)
    )
    small = torch.ones(64)

    def trained(readers: Readers | None) -> Callable[[], None]:
        def batches(dataset: Any, plan: MicroBatchPlan) -> Iterable[Any]:
            if readers is None:
                read: Iterable[Any] = range(plan.num_micro_steps)
            else:
                read = ours(readers)(dataset, plan)
            for batch in read:
                for _ in range(SMALL_STEPS):
                    torch.add(small, small, out=small)
                yield batch

        return Epochs(dataset, batches)

    ways = {
        "1 thread": trained(Readers(threads=1)),
        "1 worker": trained(Readers(workers=1)),
        "nobody, before each step": trained(HERE),
        "nothing is read": trained(None),
    }
    title = f"a step of {SMALL_STEPS:,} small operations beside one reader"
    return measure(title, ways, samples=IMAGES // 4, options=options)


def bound(options: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 - as a part is called
    """The most memory above that of the readers themselves, over what may be read ahead."""
    found = {}
    print("\nmemory of 100,000 samples of 150 kB, in batches of 32")
    for readers in (
        {"threads": 2},
        {"threads": 2, "prefetch": 8},
        {"threads": 4},
        {"workers": 2},
        {"workers": 2, "prefetch": 8},
    ):
        command = [sys.executable, __file__, "--memory-of", json.dumps(readers)]
        # What the C library keeps of freed memory, some 30 MB, is not what is read ahead.
        given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=given).stdout
        rows = json.loads(told.splitlines()[-1])
        name = ", ".join(f"{kind}: {count}" for kind, count in readers.items())
        found[name] = rows
        print(
            f"  {name:<30} readers {rows['readers_mb']:>5,.1f} MB, read ahead "
            f"{rows['ahead_mb']:>6,.1f} MB, most {rows['most_mb']:>6,.1f} MB: "
            f"{rows['most_mb'] / rows['ahead_mb']:.2f}",
            flush=True,
        )
    return {"ways": found}


def memory_of(readers: Readers) -> None:
    """Reads them, and prints how much memory that took beside that of images of one pixel."""

    def most(dataset: Any) -> int:
        batches = ours(readers)(dataset, plan_of(dataset, 0))
        return max(held_kb() for number, _ in enumerate(batches) if number % 16 == 0)

    before = held_kb()
    own = most(Made(10_000, side=1))
    told = {
        "readers_mb": (own - before) * 1024 / 1e6,
        "ahead_mb": readers.count * readers.prefetch * BATCH * 3 * SIDE**2 / 1e6,
        "most_mb": (most(Made(100_000)) - own) * 1024 / 1e6,
    }
    print(json.dumps(told))


def held_kb() -> int:
    """Of this process and its children; what several share counts once."""
    held = 0
    for process in [os.getpid(), *children()]:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            held += int(re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]  # each has one
    return held


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "memory": memory,
    "jpeg": jpeg,
    "parquet": parquet,
    "s3": s3,
    "beside": beside,
    "bound": bound,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tries", type=int, default=1, help="of a way in a round: the quietest")
    parser.add_argument("--folder", type=Path, help="where images are written, and found again")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # for all: SPDL's users would, and a DataLoader's workers do
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    if options.memory_of:
        memory_of(Readers(**json.loads(options.memory_of)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or Path(temporary)
        found = {part: PARTS[part](options) for part in options.parts}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - of the one who calls
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    for part, rows in found.items():
        before[part] = {"commit": commit, **rows}
    RESULTS.write_text(json.dumps(before, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
