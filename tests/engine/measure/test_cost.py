"""What a step costs: counted as by hand, and nothing of what is trained is touched by it."""

import copy
import random

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import (
    NUM_CLASSES,
    WIDTH,
    Net,
    bits,
    cross_entropy,
    new_state,
    run_epoch,
    samples,
)
from torch import nn

from epochal.engine import PrecisionConfig, supervised_step
from epochal.engine.measure.cost import count_flops, device_name, multiplies_in, peak_device_bytes
from epochal.engine.model.step import StepOutput

COUNT = 8


class Counting(nn.Module):
    """Changes an attribute, a buffer and all generators in each pass."""

    def __init__(self):
        super().__init__()
        self.net, self.passes = Net(), 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x_BD):
        self.passes += 1
        self.seen += len(x_BD)
        noise = random.random() + np.random.random() + torch.rand(())
        return self.net(x_BD) + noise


def step():
    return supervised_step(nn.CrossEntropyLoss(weight=torch.ones(NUM_CLASSES)))


def test_products_of_forward_and_backward_are_counted_as_by_hand():
    first, second = WIDTH * 8, 8 * NUM_CLASSES
    # Forward, the gradients of both weights, and that of the second layer's input.
    by_hand = 2 * COUNT * ((first + second) * 2 + second)
    assert count_flops(Net(), step(), samples(COUNT)) == by_hand
    # The default step as on a device for which it would have to wait, and so does not look.
    away = [one.to("meta") for one in samples(COUNT)]
    assert count_flops(Net().to("meta"), cross_entropy(), away) == by_hand


def test_counting_changes_no_bit_of_model_generators_and_training():
    model, plain = Counting(), new_state()
    counted = new_state()
    before = copy.deepcopy(model.state_dict())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert count_flops(model, step(), samples(COUNT)) > 0
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert model.passes == 0
    assert all(one.grad is None for one in model.parameters())
    assert states == (
        random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    )  # fmt: skip
    run_epoch(plain, *samples(32))
    counted.model.eval()
    count_flops(counted.model, step(), samples(COUNT))
    assert not counted.model.training
    run_epoch(counted, *samples(32))
    count_flops(counted.model, step(), samples(COUNT))
    assert bits(counted) == bits(plain)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_precision_changes_no_count(dtype):
    config = PrecisionConfig(dtype=dtype)
    plain = count_flops(Net(), step(), samples(COUNT))
    assert count_flops(Net(), step(), samples(COUNT), precision=config) == plain


def looks_at_numbers(model, data):
    loss = model(data[0]).sum()
    return StepOutput(loss / max(1.0, loss.item()))


def test_where_operations_cannot_be_counted_there_is_no_count():
    assert count_flops(Net(), looks_at_numbers, samples(COUNT)) is None

    class Alone(Net):
        def __deepcopy__(self, memo):
            raise TypeError("no copy of me")

    assert count_flops(Alone(), step(), samples(COUNT)) is None


def test_a_cpu_has_no_figures_of_a_device():
    device = torch.device("cpu")
    assert peak_device_bytes(device) is None
    assert device_name(device) is None


def test_matrices_are_multiplied_in_the_configs_numbers_or_in_tf32():
    before = torch.get_float32_matmul_precision()
    try:
        for precision, found in (("highest", "float32"), ("high", "tf32")):
            torch.set_float32_matmul_precision(precision)
            assert multiplies_in(PrecisionConfig()) == found
            assert multiplies_in(PrecisionConfig(dtype="bfloat16")) == "bfloat16"
    finally:
        torch.set_float32_matmul_precision(before)
