"""Defects of the loop of the trainer that this one replaces: gradients, counters, order, records.

The numbers are those of the list in test_cvnets_defects_all.py.
"""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import Net, cross_entropy, new_state, run_epoch, samples

from epochal.data.errors import Interrupted, NonFinite
from epochal.data.loading.order import epoch_order
from epochal.engine.config.numerics import EmaConfig, PrecisionConfig
from epochal.engine.loop.epoch import updates_table
from epochal.engine.loop.recorder import READ_EVERY, UpdateRecorder
from epochal.engine.model.ema import WeightAverage

ROOT = Path(__file__).parents[2]
HALF = PrecisionConfig(dtype="float16")


def still():
    """A model without dropout or BatchNorm: its loss is that of each sample alone."""
    return Net(dropout=0, norm=False)


def test_09_the_norm_under_float16_is_that_of_the_gradient_before_and_after_the_clip():
    """It was divided by the scale twice where it was clipped, and only known after the clip."""
    x, y = samples(16)
    found = {}
    for scale in (None, 256.0, 4096.0):
        state = new_state(still)
        if scale is not None:
            state.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        config = PrecisionConfig() if scale is None else HALF
        result = run_epoch(state, x, y, precision=config, clip_norm=0.1)
        found[scale] = result.updates["gradients/norm"]
        assert (found[scale] > 0.2).all()
        np.testing.assert_allclose(result.updates["gradients/norm_clipped"], 0.1, rtol=1e-3)
    for scale in (256.0, 4096.0):
        np.testing.assert_allclose(found[scale], found[None], rtol=0.05)


def test_10_each_update_has_one_norm_and_one_that_is_not_finite_is_no_zero():
    """Micro-batches without a step were averaged in as zeros, and infinity was logged as 0."""
    x, y = samples(48)
    small, large = new_state(still), new_state(still)
    split = run_epoch(small, x, y, batch_size=8, accumulate=3).updates["gradients/norm"]
    whole = run_epoch(large, x, y, batch_size=24).updates["gradients/norm"]
    assert split.shape == whole.shape == (2,)
    np.testing.assert_allclose(split, whole, rtol=1e-4)
    state = new_state(still)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    found = run_epoch(state, x, y, precision=HALF)
    skipped = found.updates["gradients/skipped"] > 0
    assert skipped.any()
    assert not np.isfinite(found.updates["gradients/norm"][skipped]).any()


@pytest.mark.parametrize("count", [41, 24, 7])
def test_11_the_tail_is_stepped_and_a_loss_is_a_mean_over_its_update(count):
    """Micro-batches after the last full accumulation were dropped, and losses were added up."""
    x, y = samples(count)
    split, whole = (new_state(still, torch.optim.SGD) for _ in range(2))
    one = run_epoch(split, x, y, batch_size=4, accumulate=4)
    other = run_epoch(whole, x, y, batch_size=16)
    assert one.num_samples == count
    assert one.num_updates == other.num_updates == split.updates_done == -(-count // 16)
    np.testing.assert_allclose(one.updates["train/loss"], other.updates["train/loss"], rtol=1e-5)
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(split.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)


def test_12_neither_count_nor_average_advances_in_a_skipped_update():
    """Both advanced also where the scaler had skipped the step."""
    x, y = samples(64)
    state = new_state(still)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    seen, update = [], state.ema.update
    state.ema.update = lambda updates_done: (seen.append(updates_done), update(updates_done))
    result = run_epoch(state, x, y, precision=HALF)
    assert 0 < result.num_skipped < result.num_updates
    assert state.updates_done == result.num_updates - result.num_skipped
    assert seen == list(range(1, state.updates_done + 1))


def test_15_a_nan_and_an_interruption_are_errors_and_no_update_is_waited_for(monkeypatch):
    """`isnan` waited for the device at each batch, and a NaN left by `sys.exit` on one rank."""
    reads, read = [], UpdateRecorder.read
    monkeypatch.setattr(UpdateRecorder, "read", lambda self: (reads.append(1), read(self))[1])
    x, y = samples(2 * READ_EVERY + 10)
    run_epoch(new_state(still), x, y, batch_size=1)
    assert len(reads) <= 2 * (2 + 2)  # every 256 updates and at the end
    x[20] = torch.nan
    with pytest.raises(NonFinite, match=r"update 21 of .*: 200") as told:
        run_epoch(new_state(still), x, y, batch_size=1)
    assert told.value.exit_code == 3
    assert Interrupted("a signal").exit_code == 75


def test_25_the_order_goes_by_the_runs_seed_and_leaves_global_generators_alone():
    """The order was that of `random.seed(epoch)`: the same for each seed, and a global reset."""
    ids = np.arange(100, dtype=np.int64)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    orders = [
        epoch_order(seed=seed, epoch=epoch, sample_ids_N=ids).tolist()
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    run_epoch(new_state(), *samples(16))
    assert len({tuple(order) for order in orders}) == 4
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.parametrize("rate", [1e-7, 3.3e-11])
def test_27_a_small_rate_is_recorded_as_it_is(rate):
    """Rates were rounded to six places and the best metric to two: 1e-7 was logged as 0."""
    x, y = samples(16)
    result = run_epoch(new_state(lr=rate), x, y, rate=lambda _: 1 / 3, step=cross_entropy())
    assert result.updates["train/learning_rate"].tolist() == [rate * (1 / 3)] * 2
    table = updates_table(result)
    assert table["value"][table["key"] == "train/learning_rate"].tolist() == [rate * (1 / 3)] * 2
