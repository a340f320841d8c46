"""A project in which everything draws: data, augmentation, step, metric and sampling policy.

While an item is made, a thread beside it draws too, as often as nobody knows: as one of a client
of an object store does, wherever it waits before it tries again.
"""

from pathlib import Path

from support.runs.project import Project

# ITEM_SECONDS: how long an item waits before each of its draws. STEP_SECONDS: a step's.
DRAWING = """
    import os
    import random
    import threading
    import time

    import numpy as np
    import torch
    from torch.utils.data import Dataset

    def draw():
        for _ in range(1 + os.urandom(1)[0] % 5):
            random.random()

    waits = []

    def quick(*given, **named):
        # A fiftieth of botocore's wait, drawn as ever.
        return waits[0](*given, **named) / 50

    class Augmentation:
        '''As those of timm: `random` and `np.random` in `__call__`.'''

        def __call__(self, x):
            if random.random() < 0.5:
                x = x.flip(0)
            if random.uniform(0, 1) < 0.3:
                order = list(range(len(x)))
                random.shuffle(order)
                x = x[order]
            x = x * float(np.random.beta(0.4, 0.4))
            return x + torch.from_numpy(np.random.normal(0, 0.05, len(x)).astype(np.float32))

    class Items(Dataset):
        def __init__(self, split, size, url=None):
            generator = torch.Generator().manual_seed({"train": 1, "validation": 2}[split])
            self.labels = [row % 3 for row in range(size)]
            self.x = torch.randn(size, 6, generator=generator)
            for row, label in enumerate(self.labels):
                self.x[row, 2 * label : 2 * label + 2] += 2
            self.x += torch.randn(6) * float(np.random.random()) * random.random()
            self.augment, self.url, self.files = Augmentation(), url, {}

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, row):
            self.wait(row)
            x = self.x[row] + random.random()
            self.wait(row)
            x = x + float(np.random.random()) + torch.rand(())
            self.wait(row)
            return self.augment(x), self.labels[row]

        def wait(self, row):
            if self.url is not None:
                assert self.read(row) == bytes([row])
                return
            time.sleep(float(os.environ.get("ITEM_SECONDS", 0)))
            thread = threading.Thread(target=draw)
            thread.start()
            thread.join()

        def read(self, row):
            import s3fs
            from botocore import retryhandler
            from botocore.exceptions import BotoCoreError

            if retryhandler.delay_exponential is not quick:
                waits.append(retryhandler.delay_exponential)
                retryhandler.delay_exponential = quick
            if os.getpid() not in self.files:  # its thread is not there in a process of the loader
                tries = {"retries": {"max_attempts": 20}}
                self.files[os.getpid()] = s3fs.S3FileSystem(
                    config_kwargs=tries, skip_instance_cache=True
                )
            for _ in range(9):
                try:
                    return self.files[os.getpid()].cat_file(f"{self.url}/{row}")
                except (OSError, BotoCoreError) as error:  # no more tries
                    print(f"once more: {error!r}", flush=True)
            raise OSError(f"item {row} cannot be read")
"""
PARTS = """
    import os
    import random
    import time

    import numpy as np
    import torch
    from torch.nn import functional
    from epochal.engine import StepOutput

    class Step:
        def __call__(self, model, batch):
            x, y = batch
            if model.training:
                time.sleep(float(os.environ.get("STEP_SECONDS", 0)))
                drawn = random.gauss(0, 0.1) + float(np.random.normal())
                x = x + drawn + torch.randn(x.shape)
            logits = model(x)
            loss_B = functional.cross_entropy(logits, y, reduction="none")
            return StepOutput(loss_B, logits, target=y)

    class Bootstrap:
        '''The accuracy of a sample of the samples.'''

        def __init__(self):
            self.hits, self.share = [], random.uniform(0.7, 0.9)

        def update(self, outputs, target):
            hits = (outputs.argmax(1) == target).tolist()
            self.hits += [hit for hit in hits if random.random() < self.share]

        def compute(self):
            drawn = np.random.randint(0, len(self.hits), 100)
            return float(np.mean([self.hits[one] for one in drawn])) + float(torch.rand(())) / 100
"""
OWN = """
    import random

    import numpy as np

    def some(table, context):
        loss = table["loss"]
        keep = np.random.random(len(loss)) < random.uniform(0.6, 0.8)
        keep[0] = True
        return keep, np.ones(len(loss))
"""


def drawing_project(folder: Path, *, size: int = 24, url: str | None = None, **changes) -> Project:
    """The project in a folder of its own, in a trainer process.

    size: samples to train on; a third of it to validate on. url: where each item reads one byte,
    through s3fs, before each of its draws.
    """
    data = {
        f"{split}_data": {
            "target": "drawing:Items",
            "args": {"split": split, "size": count, "url": url},
        }
        for split, count in (("train", size), ("validation", size // 3))
    }
    metric = {"name": "bootstrap", "target": "parts:Bootstrap"}
    settings = {
        "name": "drawing",
        "epochs": 2,
        "loader": {"batch_size": 4},
        "gradients": {"accumulate": 1},
        "step": {"target": "parts:Step"},
        "sampling": {"policy": "custom", "target": "own:some", "final_full": 0},
        "metrics": {"validation": ["accuracy", metric]},
        "launch": {"kind": "local"},
    }
    project = Project(folder, **data, **{**settings, **changes})
    project.write("drawing.py", DRAWING)
    project.write("parts.py", PARTS)
    project.write("own.py", OWN)
    return project
