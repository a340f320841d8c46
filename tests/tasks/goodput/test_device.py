"""What a device can do, by its name; and the count of operations on the first batch of an epoch."""

import pytest
import torch
from support.numbers.tiny_model import NUM_CLASSES, batches, bits, cross_entropy, new_state, samples

from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.measure.cost import count_flops
from epochal.tasks.goodput.device import counted, device_flops, watch_device
from epochal.tasks.goodput.stage import StageGoodput

# With weights of classes: without them the step looks at the labels, where it costs no waiting.
STEP = cross_entropy(weight=torch.ones(NUM_CLASSES))
ACTING = {"step": STEP, "precision": PrecisionConfig()}


@pytest.mark.parametrize(
    ("name", "numbers", "tera"),
    [
        ("NVIDIA H200", "bfloat16", 989.5),
        ("NVIDIA H200 NVL", "bfloat16", 835.5),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.5),
        ("NVIDIA H100 PCIe", "float16", 756.5),
        ("NVIDIA A100-SXM4-40GB", "float32", 19.5),
        ("NVIDIA A100 80GB PCIe", "bfloat16", 312),
        ("NVIDIA L4", "float32", 30.3),
        ("NVIDIA L40S", "float32", 91.6),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bfloat16", None),
        ("NVIDIA A10G", "bfloat16", None),
        ("NVIDIA L40", "bfloat16", None),
        ("NVIDIA GeForce RTX 4090", "float32", None),
        ("", "float32", None),
    ],
)
def test_the_figure_is_of_that_very_device_or_there_is_none(name, numbers, tera):
    assert device_flops(name, numbers) == (None if tera is None else tera * 1e12)


def test_the_first_batch_is_counted_per_sample_and_all_are_given():
    goodput, source = StageGoodput(), batches(*samples(40), batch_size=8)
    goodput.watch.switch("data")
    found = list(counted(goodput, source, state=new_state(), **ACTING))
    assert all(one is other for one, other in zip(found, source, strict=True))
    assert goodput.watch.cause == "data"
    whole = count_flops(new_state().model, STEP, source[0].data)
    assert goodput.flops_per_sample == whole / 8


def test_an_epoch_whose_operations_were_counted_ends_in_the_same_bits():
    ended = []
    for watched in (False, True):
        state, source = new_state(), batches(*samples(40), batch_size=8)
        given = counted(StageGoodput(), source, state=state, **ACTING) if watched else source
        train_epoch(state, given, Recipe(STEP), epoch=0, num_updates=5)
        ended.append(bits(state))
    assert ended[0] == ended[1]


def test_on_a_cpu_nothing_is_counted_and_nothing_is_known():
    goodput, source = StageGoodput(), batches(*samples(16), batch_size=8)
    assert watch_device(goodput, source, state=new_state(), **ACTING) is source
    assert (goodput.flops_per_sample, goodput.device_flops, goodput.device_bytes()) == (None,) * 3
