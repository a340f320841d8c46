"""The run of the real histories: a model of many MB, a data set, a step and a metric of its own.

Its weights are a quarter of its state: AdamW's two moments and an average of the weights are as
large each. So a commit inside an epoch, with the gradients of an update under way, goes up in parts
at any size, where it is not given up for the epoch's end. From 70 MB on the state of the optimizer
does at the end of each epoch, and at 600 MB all that is large.
"""

from pathlib import Path

from support.runs.project import Project

WIDTHS = {30: 1400, 70: 2100, 600: 6100}
"""MB of state → width of the model's square layer: 4 tensors of 4 · width² bytes."""

MODEL = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(24, width), nn.BatchNorm1d(width), nn.ReLU())
            self.wide = nn.Linear(width, width)
            self.dropout = nn.Dropout(0.2)
            self.head = nn.Linear(width, 3)

        def forward(self, x):
            return self.head(self.dropout(self.wide(self.first(x)).relu()))
"""

# A micro-step takes a while, so that something can happen in it, and is told to whoever waits for
# it: one byte in a file.
TRAINING = """
    import os
    import time
    import torch
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Step:
        def __call__(self, model, batch):
            signal, label = batch
            logits = model(signal)
            loss_B = functional.cross_entropy(logits, label, reduction="none")
            if model.training:
                time.sleep(float(os.environ.get("STEP_SECONDS", 0)))
                if "STEPS_FILE" in os.environ:
                    with open(os.environ["STEPS_FILE"], "ab") as steps:
                        steps.write(b".")
            return StepOutput(loss_B, logits, target=label, parts={"size": logits.square().mean(1)})

    class Margin:
        def __init__(self):
            self.total, self.count = 0.0, 0

        def update(self, outputs, target):
            own = outputs.gather(1, target[:, None])[:, 0]
            other = outputs.scatter(1, target[:, None], -torch.inf).amax(1)
            self.total += float((own - other).double().sum())
            self.count += len(target)

        def compute(self):
            return self.total / self.count

        def reset(self):
            self.total, self.count = 0.0, 0
"""

SIGNALS = """
    import random
    import numpy as np
    import torch
    from torch.utils.data import Dataset

    class Signals(Dataset):
        def __init__(self, split, size):
            generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
            self.train = split == "train"
            self.labels = [row % 3 for row in range(size)]
            self.signals = torch.randn(size, 24, generator=generator)
            for row, label in enumerate(self.labels):
                self.signals[row, 8 * label : 8 * label + 8] += 1

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, row):
            signal = self.signals[row]
            if self.train:
                if random.random() < 0.5:
                    signal = signal.flip(0).flip(0) * 1.1
                signal = torch.roll(signal, int(np.random.randint(-1, 2)))
                signal = signal + torch.randn(signal.shape) * 0.1
            return signal, self.labels[row]
"""

EPOCHS = 3
MICRO_STEPS = 30
"""Of a run in which no epoch leaves a sample out: 3 epochs of 10."""

SETTINGS = {
    "name": "real",
    "epochs": EPOCHS,
    "threads": 1,
    "train_data": {"target": "signals:Signals", "args": {"split": "train", "size": 80}},
    "validation_data": {"target": "signals:Signals", "args": {"split": "validation", "size": 24}},
    "step": {"target": "training:Step"},
    "loader": {"batch_size": 8},
    "gradients": {"accumulate": 4, "shards": 2, "clip_norm": 1.0},
    "optimizer": {"target": "torch.optim:AdamW", "args": {"lr": 0.001, "weight_decay": 0.05}},
    "schedule": {"kind": "warmup_stable_decay", "warmup": 0.5, "decay": 1},
    "ema": {"decay": 0.9},
    "sampling": {"policy": "easy_skip", "confidence": 0.9, "final_full": 1},
    "metrics": {
        "validation": ["accuracy", {"name": "margin", "target": "training:Margin"}],
        "best": "margin",
    },
    "launch": {"kind": "local"},
}


def real_project(folder: Path, *, size_mb: int, store: str, tracker: str, **changes) -> Project:
    """The project in a folder of its own. tracker: the address of MLflow."""
    project = Project(
        folder,
        **{
            **SETTINGS,
            "store": store,
            "tracking": {"uri": tracker, "experiment": "real"},
            "model": {"target": "model:Net", "args": {"width": WIDTHS[size_mb]}},
            **changes,
        },
    )
    project.write("model.py", MODEL)
    project.write("training.py", TRAINING)
    project.write("signals.py", SIGNALS)
    return project
