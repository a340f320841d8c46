"""What a trainer process costs an epoch: the same run `inline` and `local`, in turn in one process.

A small network on blobs, without Prefect and MLflow, so that an epoch takes some milliseconds and
what lies around it shows. Prints the medians of an epoch's seconds (train and validate, commits
included) on both sides, and of their difference in each round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import textwrap
import time
from pathlib import Path

from epochal.tasks.config.load import load_config
from epochal.tasks.running.open import open_run

PARTS = {
    "model.py": """
        from torch import nn

        def net():
            return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    """,
    "blobs.py": """
        import torch
        from torch.utils.data import TensorDataset

        def blobs(seed, size):
            generator = torch.Generator().manual_seed(seed)
            labels = torch.arange(size) % 3
            centres = torch.eye(3).repeat(1, 2) * 2
            noise = torch.randn(size, 6, generator=generator)
            return TensorDataset(centres[labels] + noise, labels)
    """,
    "run.yaml": """
        name: blobs
        epochs: {epochs}
        model: {{target: "model:net"}}
        train_data: {{target: "blobs:blobs", args: {{seed: 1, size: 256}}}}
        validation_data: {{target: "blobs:blobs", args: {{seed: 2, size: 64}}}}
        optimizer: {{target: "torch.optim:AdamW", args: {{lr: 0.01}}}}
        loader: {{batch_size: 64}}
    """,
}


def epoch_seconds(folder: Path, kind: str, number: int) -> float:
    """Seconds of an epoch of one run, from the end of the first epoch on."""
    overrides = [f"launch.kind={kind}", f"store={folder}/{kind}-{number}"]
    run = open_run(load_config(folder / "run.yaml", overrides=overrides))
    ends = []
    for stage in run.stages():
        run.run_stage(stage)
        if stage.kind == "validate":
            ends.append(time.perf_counter())
    run.close()
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as name:
        folder = Path(name)
        for file, text in PARTS.items():
            body = textwrap.dedent(text).lstrip()
            (folder / file).write_text(
                body.format(epochs=options.epochs) if file.endswith(".yaml") else body
            )
        seconds: dict[str, list[float]] = {"inline": [], "local": []}
        for number in range(options.rounds):
            for kind in sorted(seconds, reverse=bool(number % 2)):
                seconds[kind].append(epoch_seconds(folder, kind, number))
    differences = [
        1000 * (local - inline)
        for inline, local in zip(seconds["inline"], seconds["local"], strict=True)
    ]
    print(f"{platform.machine()}, Python {platform.python_version()}, {options.rounds} rounds")
    for kind, found in seconds.items():
        print(f"{kind:7} {1000 * statistics.median(found):6.1f} ms an epoch")
    print(
        f"local - inline {statistics.median(differences):.1f} ms "
        f"({min(differences):.1f}–{max(differences):.1f})"
    )


if __name__ == "__main__":
    main()
