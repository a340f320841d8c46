"""A small real project in a folder of its own, and the command line called on it."""

import contextlib
import io
import json
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml

# FAIL_AT_CALL: the training step at which the user's code raises. STEP_SECONDS: how long one takes.
MODEL = """
    import os
    import time
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width=16):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU())
            self.dropout = nn.Dropout(0.2)
            self.head = nn.Linear(width, 3)
            self.calls = 0

        def forward(self, x):
            if self.training:
                if "STEP_SECONDS" in os.environ:
                    time.sleep(float(os.environ["STEP_SECONDS"]))
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")
            return self.head(self.dropout(self.body(x)))
"""

BLOBS = """
    import torch
    from torch.utils.data import TensorDataset

    def blobs(split, size=180, shift=0.0):
        generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
        labels = torch.arange(size) % 3
        centres = torch.eye(3).repeat(1, 2) * 2
        noise = torch.randn(size, 6, generator=generator)
        return TensorDataset(centres[labels] + noise + shift, labels)
"""

ITEMS = """
    from torch.utils.data import Dataset
    from blobs import blobs

    class Items(Dataset):
        def __init__(self):
            self.data = blobs("train")

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            return self.data[row]
"""
"""The blobs as items that processes of the loader read, one by one."""

CONFIG = {
    "name": "blobs",
    "seed": 3,
    "epochs": 4,
    "store": "./store",
    "model": {"target": "model:Net"},
    "train_data": {"target": "blobs:blobs", "args": {"split": "train"}},
    "validation_data": {"target": "blobs:blobs", "args": {"split": "validation", "size": 90}},
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.01}},
    "loader": {"batch_size": 16},
    "gradients": {"accumulate": 2, "clip_norm": 1.0},
    "sampling": {"policy": "easy_skip", "confidence": 0.7},
    "tracking": {"experiment": "tests"},
    "launch": {"kind": os.environ.get("TEST_LAUNCH", "inline")},
}
"""Runs inline: a trainer process of its own for each run would cost the tests hours."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out.strip().splitlines()[-1])

    def stages(self, **wanted):
        """(stage, epoch) of the stages whose fields are as wanted."""
        return [
            (one["stage"], one["epoch"])
            for one in self.json["stages"]
            if all(one[name] == value for name, value in wanted.items())
        ]


class Project:
    """A folder with a config, a model and data."""

    def __init__(self, folder: Path, **changes):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.write("model.py", MODEL)
        self.write("blobs.py", BLOBS)
        self.write("items.py", ITEMS)
        self.config = folder / "run.yaml"
        self.config.write_text(yaml.safe_dump({**CONFIG, **changes}))
        self.store = folder / "store"

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text).lstrip())

    def __call__(self, command: str, *arguments: str, **sets) -> Done:
        """Runs `epochal COMMAND CONFIG … --json` in this process."""
        overrides = [
            part
            for name, value in sets.items()
            for part in ("--set", f"{name.replace('__', '.')}={value}")
        ]
        return call(command, str(self.config), *arguments, *overrides, "--json")


def call(*arguments: str) -> Done:
    """One command of the command line, in this process."""
    from epochal.flows.cli import run

    out, err, path = io.StringIO(), io.StringIO(), list(sys.path)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(list(arguments))
    finally:
        sys.path[:] = path  # the project's folder is not for the tests that come after
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


@contextlib.contextmanager
def environment(**variables):
    """Environment variables inside the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
