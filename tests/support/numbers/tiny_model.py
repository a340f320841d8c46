"""A small model, batches and a state for the engine's tests, without any loader."""

import numpy as np
import torch
from torch import nn

from epochal.data.store.hashed_files import write_hashed
from epochal.data.types import Batch, Window
from epochal.engine.checkpoint.safetensors_file import safetensors_pieces
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.build import build_loss, build_model
from epochal.engine.model.state import TrainingState
from epochal.engine.model.step import DefaultStep

NUM_CLASSES, WIDTH = 4, 6


class Net(nn.Module):
    """A linear layer, BatchNorm, dropout and a head: every kind of state and randomness."""

    def __init__(self, dropout=0.25, norm=True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(WIDTH, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, NUM_CLASSES)

    def forward(self, x_BD):
        return self.head(self.dropout(self.body(x_BD)))


def samples(count, seed=0):
    """Inputs (N, D) and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    noise = torch.randn(count, WIDTH, generator=generator)
    return noise + torch.eye(NUM_CLASSES, WIDTH)[labels] * 2, labels


def batches(x, y, *, batch_size, accumulate=1, weights=None, start=0):
    """Micro-batches in order, as the loader makes them."""
    count = len(y)
    per_update = batch_size * accumulate
    found = []
    for index, low in enumerate(range(0, count, batch_size)):
        high = min(low + batch_size, count)
        first = low // per_update * per_update
        size = min(first + per_update, count) - first
        window = Window(
            num_samples=size,
            last=high == first + size,
            position=(low - first) // batch_size,
            count=-(-size // batch_size),
        )
        found.append(
            Batch(
                data=(x[low:high], y[low:high]),
                sample_ids_B=np.arange(low, high, dtype=np.int64) * 10,
                window=window,
                index=index,
                weights_B=None if weights is None else weights[low:high],
            )
        )
    return found[start:]


def num_updates(count, *, batch_size, accumulate=1):
    return -(-count // (batch_size * accumulate))


def new_state(make=Net, optimizer=torch.optim.AdamW, seed=1, **options):
    model = build_model(make, seed=seed)
    options = {"lr": 0.05, **options}
    return TrainingState(model=model, optimizer=optimizer(model.parameters(), **options))


def cross_entropy(**args):
    return DefaultStep(build_loss(nn.CrossEntropyLoss, args))


def run_epoch(state, x, y, *, batch_size=8, accumulate=1, epoch=0, rate=None, step=None,
              weights=None, start=0, frozen=(), on_progress=None, resume=None, gradients=None,
              seed=5, **recipe):  # fmt: skip
    """One epoch of `state` over the samples in order."""
    clip = {name: recipe.pop(name) for name in ("clip_norm", "clip_value") if name in recipe}
    return train_epoch(
        state,
        batches(x, y, batch_size=batch_size, accumulate=accumulate, weights=weights, start=start),
        Recipe(
            step or cross_entropy(),
            gradients=GradientsConfig(accumulate=accumulate, **clip, **(gradients or {})),
            rate=rate or (lambda _: 1.0),
            frozen=lambda _: frozen,
            seed=seed,
            **recipe,
        ),
        epoch=epoch,
        num_updates=num_updates(len(y), batch_size=batch_size, accumulate=accumulate),
        on_progress=on_progress,
        resume=resume,
    )


def bits(state):
    """Every tensor and number of a state, comparable."""
    from epochal.engine.checkpoint.serialize import split_state

    parts = split_state(state)
    tensors = {**parts.model, **parts.optimizer}
    return {name: one.numpy().tobytes() for name, one in tensors.items()}, parts.document


def save_tensors(tensors, path, *, write=write_hashed):
    """A safetensors file as checkpoints are written, or commits; one that is there is replaced."""
    path.unlink(missing_ok=True)
    return write(path, safetensors_pieces(tensors))
