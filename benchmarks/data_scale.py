"""1.28 M images: opening, description, order of an epoch, resume at a random index; second start.

`python benchmarks/data_scale.py FOLDER` makes an image folder of hard links and a Parquet set of
as many rows in a new folder below FOLDER, measures each start in a process of its own, with an
empty cache and with what that left, and deletes what it made. Told are wall time, in brackets the
processors' (which other work on the machine changes less), and memory.
`python benchmarks/data_scale.py FOLDER --speed` compares reading JPEGs of 224 × 224 from the folder
and from Parquet instead, in turns in one process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from epochal.data.datasets import image_folder, parquet_images
from epochal.data.files.local_cache import FOLDER_VARIABLE
from epochal.data.loading.order import epoch_order, micro_batches

COUNT, CLASSES, FILES = 1_280_000, 1000, 16
ROUNDS = 5
SPEED_COUNT, SPEED_BATCH = 4000, 64
MB = 1e6

HUB = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--group-rows", type=int, default=100)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--start", choices=("folder", "parquet"), help="one start: for itself")
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start(given.start, given.folder)))
        return
    scratch = Path(tempfile.mkdtemp(prefix="epochal-data-scale-", dir=given.folder))
    try:
        if given.speed:
            compare_speed(scratch)
        else:
            measure_scale(scratch, given.count, given.group_rows)
    finally:
        shutil.rmtree(scratch)


def measure_scale(scratch: Path, count: int, group_rows: int) -> None:
    make_folder(scratch / "folder", count)
    make_parquet(scratch / "parquet", count, group_rows)
    for kind in ("folder", "parquet"):
        environment = os.environ | {FOLDER_VARIABLE: str(scratch / "cache")}
        for which in ("first", "second", "second"):
            command = [sys.executable, __file__, "--start", kind, str(scratch / kind)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            told = json.loads(done.stdout)
            load = f"load {os.getloadavg()[0]:.1f}"
            steps = ", ".join(
                f"{step} {wall:.2f} s ({own:.2f})" for step, (wall, own) in told["s"].items()
            )
            print(f"{kind}, {which} start: {steps}; most memory {told['mb']:.0f} MB; {load}")


def start(kind: str, place: Path) -> dict[str, Any]:
    """One start: seconds of each step, and memory in MB beyond what importing took."""
    before = peak_mb()
    seconds: dict[str, tuple[float, float]] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        begun, begun_s = time.perf_counter(), processor_s()
        result = work()
        seconds[step] = (time.perf_counter() - begun, processor_s() - begun_s)
        return result

    opened: dict[str, Callable[[str], Any]] = {"folder": image_folder, "parquet": parquet_images}
    dataset = timed("open", lambda: opened[kind](str(place)))
    timed("describe", lambda: (dataset.fingerprint(), dataset.stamp(), len(dataset.targets)))
    ids_N = np.arange(len(dataset), dtype=np.int64)

    def plan() -> Any:
        order_N = epoch_order(seed=7, epoch=3, sample_ids_N=ids_N)
        return micro_batches(order_N, batch_size=256)

    timed("order", plan)

    def resume() -> Any:
        positions = plan().slice(len(dataset) // 512).tolist()
        return dataset.__getitems__(positions[:1])

    timed("resume and read an item", resume)
    return {"s": seconds, "mb": peak_mb() - before}


def peak_mb() -> float:
    """The most memory so far. Not `ru_maxrss`, which a process inherits from who starts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) * 1024 / MB


def processor_s() -> float:
    """Seconds of all processors, those of processes that have ended included."""
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def picture(number: int, side: int) -> bytes:
    """A JPEG of its own: a piece of one of scikit-learn's two photographs."""
    rng = np.random.default_rng(number)
    photo = load_sample_images().images[number % 2]
    top, left = (int(rng.integers(0, size - side)) for size in photo.shape[:2])
    stream = io.BytesIO()
    Image.fromarray(photo[top : top + side, left : left + side]).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def make_folder(place: Path, count: int) -> None:
    sources = place.parent / "sources"
    sources.mkdir()
    data = picture(0, 16)
    for label in range(CLASSES):
        folder = place / f"n{label:08}"
        folder.mkdir(parents=True)
        source = sources / str(label)
        source.write_bytes(data)
        for number in range(count // CLASSES):
            os.link(source, folder / f"n{label:08}_{number}.JPEG")


def make_parquet(place: Path, count: int, group_rows: int) -> None:
    place.mkdir()
    rows = count // FILES
    data = [picture(number, 16) for number in range(100)]
    images = [{"bytes": data[row % 100], "path": f"{row}.JPEG"} for row in range(rows)]
    for number in range(FILES):
        labels = np.arange(rows, dtype=np.int64) % CLASSES
        table = pa.table({"image": pa.array(images, HUB), "label": labels})
        name = f"train-{number:05}-of-{FILES:05}.parquet"
        pq.write_table(table, place / name, row_group_size=group_rows)


def compare_speed(scratch: Path) -> None:
    """Samples a second, the best of several rounds in which all take turns, on one thread."""
    torch.set_num_threads(1)
    data = [picture(number, 224) for number in range(SPEED_COUNT)]
    for number, one in enumerate(data):
        file = scratch / "folder" / str(number % 10) / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(one)
    image = pa.array([{"bytes": one, "path": ""} for one in data], HUB)
    table = pa.table({"image": image, "label": np.arange(len(data)) % 10})
    orders: dict[str, tuple[Any, npt.NDArray[np.int64]]] = {}
    rng = np.random.default_rng(0)
    folder = image_folder(str(scratch / "folder"), dtype="uint8")
    orders["folder, any order"] = (folder, rng.permutation(len(folder)))
    for rows in (100, 1000):
        place = scratch / f"groups-of-{rows}.parquet"
        pq.write_table(table, place, row_group_size=rows)
        dataset = parquet_images(str(place), dtype="uint8")
        shuffled = rng.permutation(len(dataset) // rows)
        by_block = np.concatenate([block * rows + rng.permutation(rows) for block in shuffled])
        orders[f"parquet, groups of {rows}, block order"] = (dataset, by_block)
        # Each item reads its group: as in any order in a set that is far larger than what is kept.
        cold = parquet_images(str(place), dtype="uint8")
        cold._groups._mine._limit = 1  # noqa: SLF001 - 1.28 M rows would not fit here
        some = rng.permutation(len(cold))[: len(cold) // 10]
        orders[f"parquet, groups of {rows}, any order, none kept"] = (cold, some)
    best = dict.fromkeys(orders, 0.0)
    for _ in range(ROUNDS):
        for name, (dataset, order_N) in orders.items():
            batch = 1 if name.endswith("none kept") else SPEED_BATCH
            begun = time.perf_counter()
            for first in range(0, len(order_N), batch):
                dataset.__getitems__(order_N[first : first + batch].tolist())
            best[name] = max(best[name], len(order_N) / (time.perf_counter() - begun))
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)
    base = best["folder, any order"]
    for name, rate in best.items():
        print(f"{name}: {rate:.0f} samples/s, {rate / base:.2f} of the folder's")


if __name__ == "__main__":
    main()
