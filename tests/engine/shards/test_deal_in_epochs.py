"""Updates that are dealt to shards: the same training, in the tree's order of additions."""

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import Net, batches, bits, new_state, run_epoch, samples
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import GradientsConfig
from epochal.engine.loop.gradients import Gradients

COUNT = 100  # 25 micro-batches of 4 in updates of 8, 8, 8 and 1


def trained(shards, **options):
    state = new_state(optimizer=torch.optim.SGD, lr=0.05, momentum=0.9)
    options.setdefault("gradients", {})
    options["gradients"] = {"shards": shards, **options["gradients"]}
    result = run_epoch(state, *samples(COUNT), batch_size=4, accumulate=8, **options)
    return state, result


@pytest.mark.parametrize("shards", [2, 4, 8, 16])
def test_a_dealt_update_is_the_same_but_for_rounding(shards):
    (one, plain), (other, dealt) = trained(1), trained(shards)
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    for name, column in plain.updates.items():
        np.testing.assert_allclose(dealt.updates[name], column, rtol=1e-4)
    assert dealt.mean_loss == pytest.approx(plain.mean_loss, rel=1e-5)


def test_the_number_of_shards_is_part_of_the_bits():
    found = [bits(trained(shards)[0])[0] for shards in (1, 2, 8)]
    assert len({str(sorted(one.items())) for one in found}) == 3


def test_two_dealt_runs_agree_to_the_last_bit():
    assert bits(trained(4)[0]) == bits(trained(4)[0])


def test_gradients_are_the_trees_sum_of_what_each_shard_gives_by_itself():
    x, y = samples(32)
    config = GradientsConfig(accumulate=8, shards=4)

    def losses(state, which):
        return [
            nn.functional.cross_entropy(state.model(batch.data[0]), batch.data[1])
            for batch in which
        ]

    def fresh():
        return new_state(lambda: Net(dropout=0.0, norm=False), optimizer=torch.optim.SGD)

    updates = batches(x, y, batch_size=4, accumulate=8)
    alone = []
    for start in range(0, 8, 2):
        state = fresh()
        for loss in losses(state, updates[start : start + 2]):
            loss.backward()
        alone.append([one.grad for one in state.model.parameters()])
    expected = [(a + b) + (c + d) for a, b, c, d in zip(*alone, strict=True)]
    state, found = fresh(), []
    gradients = Gradients(state, config)
    gradients.begin()
    state.optimizer.step = lambda: found.extend(p.grad.clone() for p in state.model.parameters())
    for batch in updates:
        gradients.begin_micro_batch(batch.window)
        (loss,) = losses(state, [batch])
        loss.backward()
    gradients.update(torch.zeros(()), updates[-1].window)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_gets_no_gradient_has_none_or_zero_as_the_config_says():
    for zeroing in ("none", "zero"):
        state, _ = trained(4, gradients={"zeroing": zeroing}, frozen=("head.*",))
        assert state.updates_done == 4


def test_running_statistics_are_the_recurrence_over_micro_batches_in_their_order():
    made = {}
    for shards in (1, 4):
        state, _ = trained(shards)
        layer = state.model.body[1]
        made[shards] = layer.running_mean, layer.running_var
        assert layer.momentum == 0.1
        assert int(layer.num_batches_tracked) == 25
    for one, other in zip(made[1], made[4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_layer_that_normalises_over_processes_is_refused():
    def make():
        return nn.SyncBatchNorm.convert_sync_batchnorm(Net())

    with pytest.raises(TargetError, match="body.1 is a SyncBatchNorm"):
        run_epoch(new_state(make), *samples(8), batch_size=4, accumulate=2, gradients={"shards": 2})
