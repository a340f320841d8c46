"""What benchmarks/data.py reads: JPEG images as files, in Parquet, on an S3 server; and none."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

SIDE = 224
BUCKET = "epochal-benchmark"


def textures(count: int) -> Iterator[bytes]:
    """JPEG files of smooth colours with detail at five scales: some 19 kB each."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        pixels = np.full((SIDE, SIDE, 3), 128.0)
        for cells, depth in ((7, 60), (14, 40), (28, 28), (56, 20), (112, 12)):
            coarse = rng.normal(size=(3, cells, cells)).astype(np.float32)
            for channel in range(3):
                grown = Image.fromarray(coarse[channel]).resize(
                    (SIDE, SIDE), Image.Resampling.BICUBIC
                )
                pixels[:, :, channel] += depth * np.asarray(grown)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        yield file.getvalue()


def write_folder(folder: Path, count: int) -> None:
    """Ten classes, unless they are there."""
    if (folder / "written").exists():
        return
    for number, data in enumerate(textures(count)):
        path = folder / f"class_{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "written").touch()


def write_parquet(folder: Path, parquet: Path, count: int) -> None:
    """The first images as the hub has them: `image: {bytes, path}` and `label`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if parquet.exists():
        return
    files = sorted(folder.glob("*/*.jpg"))[:count]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [int(file.parent.name.removeprefix("class_")) for file in files]
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table, parquet, row_group_size=100)


@contextmanager
def s3_server() -> Iterator[Callable[[str, bytes], None]]:
    """Moto's server in a process of its own, with one bucket; gives what writes to it."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "EPOCHAL_CACHE_BYTES": "0",  # each round reads from the server
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            assert time.monotonic() < deadline_s, "the S3 server does not answer"
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield lambda key, data: client.put_object(Bucket=BUCKET, Key=key, Body=data)
    finally:
        server.kill()
        server.wait()


class Made(Dataset[Any]):
    """Images that no file holds; several threads may read them."""

    thread_safe = True

    def __init__(self, count: int, side: int = SIDE) -> None:
        self._count, self._side = count, side

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Any:
        image = torch.full((3, self._side, self._side), position % 251, dtype=torch.uint8)
        return image, position % 10
