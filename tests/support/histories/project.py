"""The project that every history trains: its model, its images, a policy of a user's own.

A history's config gives what differs from run to run; here is what all runs have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.runs.project import Project
from support.runs.proof_policies import OWN
from support.runs.proof_project import IMAGES, MODEL

SAMPLES = 22
"""In micro-batches of 4: five whole ones and a short one."""

BASE: dict[str, Any] = {
    "name": "history",
    "threads": 1,
    "train_data": {"target": "images:Images", "args": {"split": "train", "size": SAMPLES}},
    "validation_data": {"target": "images:Images", "args": {"split": "validation", "size": 8}},
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.02, "weight_decay": 0.05}},
}


def history_project(folder: Path, config: Mapping[str, Any]) -> Project:
    """The project in a folder of its own. config: as `History` has it."""
    project = Project(folder, **{"sampling": {}, "gradients": {}, **BASE, **config})
    project.write("model.py", MODEL)
    project.write("images.py", IMAGES)
    project.write("own.py", OWN)
    return project
