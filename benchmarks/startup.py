"""The start of a run of which everything is done, on S3 (moto's server): requests, bytes, seconds.

    python benchmarks/startup.py make /tmp/startup           # trains once, into a folder
    python benchmarks/startup.py measure /tmp/startup        # puts it on S3, and starts on it

A network of 40,000 weights with AdamW and a policy that writes a table of 6,000 samples for
each epoch. Requests are counted where s3fs makes them.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUCKET = "epochal-startup"
MODULE = """
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    def net():
        return nn.Sequential(nn.Linear(16, 2000), nn.ReLU(), nn.Linear(2000, 3))

    def blobs(seed, size):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(size) % 3
        noise = torch.randn(size, 16, generator=generator)
        return TensorDataset(noise + 3 * torch.eye(16)[labels], labels)
"""
CONFIG = """
    name: startup
    epochs: {epochs}
    store: ./store
    model: {{target: "startup_run:net"}}
    train_data: {{target: "startup_run:blobs", args: {{seed: 1, size: 6000}}}}
    validation_data: {{target: "startup_run:blobs", args: {{seed: 2, size: 100}}}}
    optimizer: {{target: "torch.optim:AdamW", args: {{lr: 0.001}}}}
    loader: {{batch_size: 1000}}
    sampling: {{policy: easy_skip}}
"""


def make(folder: Path, *, epochs: int) -> None:
    """Trains the run, without Prefect and MLflow."""
    from epochal.tasks.config.load import load_config
    from epochal.tasks.running.open import open_run

    folder.mkdir(parents=True)
    (folder / "startup_run.py").write_text(textwrap.dedent(MODULE))
    (folder / "run.yaml").write_text(textwrap.dedent(CONFIG).format(epochs=epochs))
    run = open_run(load_config(folder / "run.yaml"))
    for stage in run.stages():
        run.run_stage(stage)


@contextmanager
def s3() -> Iterator[None]:
    """A server of moto in a process of its own, with a bucket; the environment names it."""
    import boto3

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if server.poll() is not None:
                    raise
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield
    finally:
        server.kill()
        server.wait()


def measure(folder: Path, *, rounds: int) -> None:
    """Opens the run on S3, where it is whole; prints what that asks for."""
    import boto3
    from s3fs import S3FileSystem

    from epochal.tasks.config.load import load_config
    from epochal.tasks.running.open import open_run

    requests: Counter[str] = Counter()
    answered = 0
    original = S3FileSystem._call_s3  # noqa: SLF001 - the one way of all its requests

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal answered
        answer = await original(self, method, *args, **kwargs)
        requests[method] += 1
        answered += answer.get("ContentLength", 0) if method == "get_object" else 0
        return answer

    with s3():
        client = boto3.client("s3")
        files = [path for path in (folder / "store").rglob("*") if path.is_file()]
        for path in files:
            client.upload_file(str(path), BUCKET, str(path.relative_to(folder)))
        print(f"{len(files)} objects, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
        S3FileSystem._call_s3 = counted  # noqa: SLF001 - counted there
        for _ in range(rounds):
            requests.clear()
            answered = 0
            started = time.perf_counter()
            config = load_config(folder / "run.yaml", overrides=[f"store=s3://{BUCKET}/store"])
            view = open_run(config).view
            seconds = time.perf_counter() - started
            done = sum(map(view.is_done, view.stages))
            print(
                f"{done} of {len(view.stages)} stages done, {requests.total()} requests "
                f"{dict(requests)}, {answered / 1e6:.3f} MB of objects, {seconds:.1f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, epochs=options.epochs)
    else:
        measure(options.folder, rounds=options.rounds)


if __name__ == "__main__":
    main()
