"""The run of the proof: every kind of state and of randomness that a training can have, small.

A CNN with BatchNorm and dropout, augmentation and mixtures, float16 with its scale, AdamW, a
schedule, an average of the weights, validation inside epochs, micro-batches of variable size and
resolution with balanced classes, accumulation with a short tail, commits inside accumulations and
inside that tail, mining, early stopping, averaging of checkpoints, retention.
"""

from pathlib import Path

from support.runs.project import Project

MODEL = """
    import os
    import time
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                nn.AdaptiveAvgPool2d(6), nn.Flatten(),
            )
            self.dropout = nn.Dropout(0.2)
            self.head = nn.Linear(4 * 36, 3)

        def forward(self, x):
            if self.training:
                time.sleep(float(os.environ.get("STEP_SECONDS", 0)))
            return self.head(self.dropout(self.body(x)))
"""

IMAGES = """
    import random
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Images(Dataset):
        def __init__(self, split, size):
            generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
            self.train = split == "train"
            self.labels = [row % 3 for row in range(size)]
            self.images = torch.randn(size, 1, 6, 6, generator=generator) * 0.5
            for row, label in enumerate(self.labels):
                self.images[row, 0, 2 * label : 2 * label + 2] += 2

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, row):
            image = self.images[row]
            if self.train:
                if random.random() < 0.5:
                    image = image.flip(-1)
                image = torch.roll(image, int(np.random.randint(-1, 2)), -1)
                image = image + torch.randn(image.shape) * 0.1
            return image, self.labels[row]
"""

# 38 samples in micro-batches of 4, 2 or 1, by their resolution, four to an update. The first epoch
# has 14 of them: windows of 4, 4, 4 and 2.
SETTINGS = {
    "name": "proof",
    "epochs": 3,
    "threads": 1,
    "train_data": {"target": "images:Images", "args": {"split": "train", "size": 38}},
    "validation_data": {"target": "images:Images", "args": {"split": "validation", "size": 9}},
    "loader": {"batch_size": 4},
    "batches": {
        "kind": "variable_batch",
        "size": 6,
        "sizes": [6, 8, 10],
        "divisible_by": 2,
        "class_balanced": True,
    },
    "gradients": {"accumulate": 4, "clip_norm": 1.0},
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.02, "weight_decay": 0.05}},
    "schedule": {"kind": "warmup_stable_decay", "warmup": 0.5, "decay": 1},
    "ema": {"decay": 0.9, "copy_at_epoch": 2},
    "sampling": {"policy": "easy_skip", "confidence": 0.6, "final_full": 1},
    "metrics": {"best": "loss"},
    "mixing": {"mixup": 0.2, "cutmix": 0.5, "probability": 0.7},
    "precision": {"dtype": "float16"},
    "validation": {"every_updates": 2},
    "early_stopping": {"patience": 2, "start": 2},
    "averaging": {"best": 2},
    "checkpoint": {"keep_last": 2, "keep_best": 1},
}


def commits_here(micro_steps: int) -> bool:
    """Inside the first accumulation of an epoch, and inside its tail."""
    return micro_steps % 11 == 2


def proof_project(folder: Path, **changes) -> Project:
    """The project in a folder of its own."""
    project = Project(folder, **{**SETTINGS, **changes})
    project.write("model.py", MODEL)
    project.write("images.py", IMAGES)
    return project
