"""Micro-batches of variable size and resolution train as a loop that a person would write."""

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import NUM_CLASSES, cross_entropy, new_state
from torch import nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from epochal.data.config.batches import BatchesConfig
from epochal.data.errors import TargetError
from epochal.data.hashing import hash_u64, seed_64
from epochal.data.loading.batch_sampler import sampler_order, sampler_plan
from epochal.data.loading.loader import train_batches
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.loop.resize import resized

SEED, EPOCH, BATCH, BASE = 5, 2, 4, 8
SIZES = [(6, 6), (8, 8), (8, 12), (12, 12)]
UPDATES = 50


class Pooled(nn.Module):
    """For images of any resolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4, NUM_CLASSES)

    def forward(self, x):
        return self.head(self.dropout(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


def images(count):
    generator = torch.Generator().manual_seed(3)
    y = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return torch.randn(count, 2, 8, 8, generator=generator) + y[:, None, None, None] * 0.3, y


def by_hand(x, y, order, *, variable, accumulate):
    """The loop; gives the model and its updates. Nothing of sampler or engine is in it."""
    state = new_state(Pooled)
    model, optimizer = state.model, state.optimizer
    criterion = nn.CrossEntropyLoss(reduction="sum")
    steps, low = [], 0
    while low < len(order):
        number = int(hash_u64(np.array([len(steps)]), "sampler", SEED, EPOCH)[0])
        height, width = SIZES[number % len(SIZES)]
        batch = max(1, BATCH * BASE * BASE // (height * width)) if variable else BATCH
        steps.append((order[low : low + batch], (height, width)))
        low += batch
    model.train()
    updates = 0
    for index, (rows, size) in enumerate(steps):
        torch.manual_seed(seed_64(SEED, "step", EPOCH, index))
        first = index // accumulate * accumulate
        window = sum(len(one) for one, _ in steps[first : first + accumulate])
        input_BCHW = x[rows]
        if size != (8, 8):
            input_BCHW = interpolate(input_BCHW, size, mode="bilinear", antialias=True)
        (criterion(model(input_BCHW), y[rows]) / window).backward()
        if index % accumulate == accumulate - 1 or index == len(steps) - 1:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
    return model, updates


@pytest.mark.parametrize(
    ("kind", "accumulate"),
    [
        ("multi_scale", 1),
        pytest.param("multi_scale", 3, marks=pytest.mark.slow),
        pytest.param("variable_batch", 1, marks=pytest.mark.slow),
        ("variable_batch", 3),
    ],
)
def test_weights_are_bitwise_those_of_the_loop(kind, accumulate):
    x, y = images(UPDATES * accumulate * BATCH)
    base = {"size": BASE} if kind == "variable_batch" else {}
    config = BatchesConfig(kind=kind, sizes=SIZES, divisible_by=2, **base)
    ids = np.arange(len(y))
    order = sampler_order(config, seed=SEED, epoch=EPOCH, sample_ids_N=ids)
    plan = sampler_plan(
        config, order, batch_size=BATCH, accumulate=accumulate, drop_last=False, seed=SEED,
        epoch=EPOCH,
    )  # fmt: skip
    state = new_state(Pooled)
    result = train_epoch(
        state,
        train_batches(TensorDataset(x, y), plan, sample_ids_N=ids, seed=SEED, epoch=EPOCH),
        Recipe(
            cross_entropy(),
            gradients=GradientsConfig(accumulate=accumulate, clip_norm=0.5),
            seed=SEED,
        ),
        epoch=EPOCH,
        num_updates=plan.num_updates,
    )
    model, updates = by_hand(x, y, order, variable=kind == "variable_batch", accumulate=accumulate)
    assert result.num_updates == updates >= UPDATES
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name


def test_only_the_input_of_a_batch_is_resized():
    x, y = images(3)
    found = resized({"image": x, "label": y, "mask": x}, (4, 6))
    assert found["image"].shape == (3, 2, 4, 6)
    assert found["mask"] is x
    assert resized((x, y), (8, 8))[0] is x
    assert torch.equal(resized([x, y, y], (4, 6))[0], found["image"])


@pytest.mark.parametrize(
    "data",
    [
        (torch.zeros(2, 6), None),
        (torch.zeros(2, 3, 8, 8).byte(), None),
        {"tokens": torch.zeros(2, 3, 8, 8)},
        torch.zeros(2, 3, 8, 8),
    ],
)
def test_what_is_no_batch_of_images_is_an_error(data):
    with pytest.raises(TargetError, match="batches.kind: fixed"):
        resized(data, (4, 4))
