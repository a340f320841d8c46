"""A model of which each process holds a slice: the bytes of one process that holds it all."""

import numpy as np
import pytest
import torch
from support.numbers.processes import in_group
from support.numbers.sliced_state import own_batches, sliced_group, whole_bits
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, num_updates, samples

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import EmaConfig, GradientsConfig
from epochal.engine.library import metrics_of
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.loop.evaluate import score_samples, validate_epoch
from epochal.engine.model.ema import WeightAverage

ACCUMULATE, SIZE = 8, 4


def trained(exchange, shards, count, optimizer=torch.optim.AdamW, **gradients):
    """Weights, optimizer, average and tables after two epochs with a validation between."""
    torch.set_num_threads(1)
    state = new_state(optimizer=optimizer)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    group = None if exchange is None else sliced_group(state, exchange, shards)
    x, y = samples(count)
    weights = torch.linspace(0.5, 1.5, count)
    tables = []
    for epoch in range(2):
        found = batches(x, y, batch_size=SIZE, accumulate=ACCUMULATE, weights=weights)
        result = train_epoch(
            state,
            found if group is None else own_batches(found, group),
            Recipe(
                cross_entropy(weight=torch.tensor([1.0, 2.0, 0.5, 1.0])),
                gradients=GradientsConfig(accumulate=ACCUMULATE, shards=shards, **gradients),
                seed=5,
            ),
            epoch=epoch,
            num_updates=num_updates(count, batch_size=SIZE, accumulate=ACCUMULATE),
            group=group,
        )
        tables.append({name: one.tobytes() for name, one in result.updates.items()})
        if group is None or group.first:
            tables.append({name: one.tobytes() for name, one in result.observations.items()})
        measured = validated(state, group, x, y)
        if group is None or group.first:
            tables.append(measured)
    return (bits(state) if exchange is None else whole_bits(state, exchange)), tables


def validated(state, group, x, y):
    def found():
        every = batches(x, y, batch_size=SIZE)
        if group is None:
            yield from every
            return
        for turn in range(-(-len(every) // group.size)):
            place = turn * group.size + group.rank
            yield every[place] if place < len(every) else own_empty(every[0])

    result = validate_epoch(
        state.model, found(), step=cross_entropy(), metrics=metrics_of("accuracy"), group=group
    )
    scores = score_samples(state.model, found(), step=cross_entropy(), group=group)
    return result.values, {name: one.tobytes() for name, one in scores.items()}


def own_empty(batch):
    from dataclasses import replace

    return replace(batch, data=None, sample_ids_B=np.zeros(0, np.int64))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(("shards", "count"), [(4, 100), (8, 98)])
def test_any_number_of_processes_gives_the_bytes_of_one(size, shards, count, tmp_path):
    options = {"clip_norm": 0.3, "update_ratio": True}
    alone = trained(None, shards, count, **options)
    found = in_group(trained_clipped, size, tmp_path, shards, count)
    for whole, _ in found:
        assert whole == alone[0]
    assert found[0][1] == alone[1]


def trained_clipped(exchange, shards, count):
    return trained(exchange, shards, count, clip_norm=0.3, update_ratio=True)
