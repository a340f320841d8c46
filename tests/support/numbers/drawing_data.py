"""A data set whose items draw random numbers, and the batches that a loader makes of it."""

import random
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from epochal.data.loading.loader import train_batches
from epochal.data.loading.order import epoch_order, micro_batches
from epochal.data.loading.readers import Readers

COUNT = 23


few_processors = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Drawing(Dataset):
    """Items of a position and of numbers from all three global generators."""

    def __init__(self, count=COUNT):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        drawn = [torch.rand(()).item(), np.random.random(), random.random()]
        return torch.tensor([position, *drawn], dtype=torch.float64), position % 3


class Steady(Dataset):
    """Items that several threads may read at once: what they draw is of generators of their own."""

    thread_safe = True

    def __init__(self, count=COUNT, size=8):
        self.count = count
        self.size = size

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        drawn = np.random.default_rng([7, position]).random(self.size)
        return torch.from_numpy(np.append(drawn, position)), position % 3


def batches(
    dataset,
    *,
    ids=None,
    epoch=0,
    start=0,
    batch_size=4,
    own=None,
    weights_N=None,
    collate=None,
    **readers,
):
    """readers: fields of `Readers`."""
    ids = np.arange(len(dataset)) if ids is None else ids
    plan = micro_batches(
        epoch_order(seed=7, epoch=epoch, sample_ids_N=ids), batch_size=batch_size, accumulate=2
    )
    return train_batches(
        dataset,
        plan,
        sample_ids_N=ids,
        readers=Readers(**readers),
        seed=7,
        epoch=epoch,
        start=start,
        own=own,
        weights_N=weights_N,
        collate=collate,
    )


def plain(batch):
    """A batch as values that can be compared."""
    data = batch.data
    data = data if isinstance(data, dict) else dict(enumerate(data))
    return (
        {name: part.tolist() for name, part in data.items()},
        batch.sample_ids_B.tolist(),
        batch.window,
        batch.index,
        None if batch.weights_B is None else batch.weights_B.tolist(),
    )


class Slow(Drawing):
    def __getitem__(self, position):
        time.sleep(60)
