"""What the default step makes of a batch."""

import pytest
import torch
from torch import nn

from epochal.engine.model.build import build_loss
from epochal.engine.model.step import DefaultStep

# B samples


@pytest.mark.parametrize("target", ["torch.nn:BCEWithLogitsLoss", "torch.nn:MSELoss"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_targets_of_a_loss_between_numbers(target, dtype):
    factory = getattr(nn, target.partition(":")[2])
    outputs_B, target_B = torch.randn(8, requires_grad=True), torch.arange(8) % 2
    step = DefaultStep(build_loss(factory, {}))
    found_B = step.losses(outputs_B, target_B.to(dtype)).loss_B
    assert torch.equal(found_B, factory(reduction="none")(outputs_B, target_B.float()))
    found_B.sum().backward()


def test_classes_stay_whole_numbers():
    outputs, target = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    found_B = DefaultStep(build_loss(nn.CrossEntropyLoss, {})).losses(outputs, target).loss_B
    assert torch.equal(found_B, nn.functional.cross_entropy(outputs, target, reduction="none"))
