"""Updates that several processes share: the bytes of one process, whoever trains on what."""

import numpy as np
import pytest
import torch
from support.numbers.processes import in_group
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, num_updates, samples

from epochal.data.types import Batch
from epochal.engine.config.numerics import EmaConfig, GradientsConfig, PrecisionConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.precision import new_scaler
from epochal.engine.shards.group import Group

COUNT = 100  # 25 micro-batches of 4 in updates of 8, 8, 8 and 1


def own_batches(all_batches, group):
    """Those of a group's process, as the loader gives them."""
    updates = {}
    for batch in all_batches:
        updates.setdefault(batch.index - batch.window.position, []).append(batch)
    for first, update in updates.items():
        own = group.micro_batches(len(update))
        window = update[0].window
        if not own:
            yield Batch(None, np.zeros(0, np.int64), with_last(window, True), first)
        for position in own:
            one = update[position]
            one.window = with_last(one.window, position + 1 == own.stop)
            yield one


def with_last(window, last):
    from dataclasses import replace

    return replace(window, last=last)


def trained(exchange, shards, count=COUNT, accumulate=8, step=None, dtype="float32", **gradients):
    torch.set_num_threads(1)
    state, precision = new_state(), PrecisionConfig(dtype=dtype)
    state.scaler = new_scaler(precision, state.device)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    group = None if exchange is None else Group(exchange, shards)
    x, y = samples(count)
    weights = torch.linspace(0.5, 1.5, count)
    found = batches(x, y, batch_size=4, accumulate=accumulate, weights=weights)
    captured = []

    def watch(progress):
        if progress.between_updates and progress.updates == 2:
            captured.append(progress.capture())

    result = train_epoch(
        state,
        found if group is None else own_batches(found, group),
        Recipe(
            step or cross_entropy(weight=torch.tensor([1.0, 2.0, 0.5, 1.0])),
            gradients=GradientsConfig(accumulate=accumulate, shards=shards, **gradients),
            precision=precision,
            seed=5,
        ),
        epoch=0,
        num_updates=num_updates(count, batch_size=4, accumulate=accumulate),
        group=group,
        on_progress=watch,
    )
    kept = captured[0] if captured else None
    return (
        str(bits(state)),
        {name: one.tobytes() for name, one in result.updates.items()},
        {name: one.tobytes() for name, one in result.observations.items()},
        (result.mean_loss, result.accuracy, result.num_samples),
        kept and {name: one.tobytes() for name, one in kept.observations.items()},
    )


@pytest.mark.parametrize(
    ("size", "shards", "count"),
    [
        (2, 4, 100),
        (3, 8, 98),
        pytest.param(2, 8, 98, marks=pytest.mark.slow),
        pytest.param(3, 4, 100, marks=pytest.mark.slow),
        pytest.param(4, 4, 100, marks=pytest.mark.slow),
        pytest.param(4, 8, 98, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_gives_the_bytes_of_one(size, shards, count, tmp_path):
    alone = trained(None, shards, count, clip_norm=0.3, update_ratio=True)
    first, *others = in_group(trained_clipped, size, tmp_path, shards, count)
    assert first == alone
    for other in others:
        assert other[:2] == alone[:2]


def trained_clipped(exchange, shards, count):
    return trained(exchange, shards, count, clip_norm=0.3, update_ratio=True)


def test_one_that_has_no_micro_batch_of_the_first_update_scales_too(tmp_path):
    alone = in_float16(None)
    for one in in_group(in_float16, 3, tmp_path):
        assert one[:2] == alone[:2]


def in_float16(exchange):
    return trained(exchange, 4, 24, accumulate=2, dtype="float16")  # two for three processes
