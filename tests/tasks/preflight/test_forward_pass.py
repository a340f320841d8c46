"""A loss whose mean training would not follow is found before the start."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.model.build import build_loss
from epochal.engine.model.step import DefaultStep
from epochal.tasks.preflight.forward_pass import check_mean


class Focal(nn.Module):
    """(1 − p)² · cross entropy, weighted; divided by the weights as few of its kind are."""

    def __init__(self, weight, reduction="mean", by_weight=True):
        super().__init__()
        self.weight, self.reduction, self.by_weight = weight, reduction, by_weight

    def forward(self, logits_BC, target_B):
        losses_B = nn.functional.cross_entropy(logits_BC, target_B, reduction="none")
        weight_B = torch.tensor(self.weight)[target_B]
        losses_B = weight_B * (1 - (-losses_B).exp()) ** 2 * losses_B
        if self.reduction == "none":
            return losses_B
        return losses_B.sum() / (weight_B.sum() if self.by_weight else len(target_B))


class Noisy(nn.Module):
    """Draws numbers, as losses with negative sampling do."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, logits_BC, target_B):
        noisy_BC = logits_BC + torch.randn_like(logits_BC)
        return nn.functional.cross_entropy(noisy_BC, target_B, reduction=self.reduction)


def check(kind, args, *, target=None, dtype=torch.float32):
    loss = build_loss(kind, args)
    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    target = torch.tensor([0, 1, 2, 1, 0, 1]) if target is None else target
    config = SimpleNamespace(seed=0, step=None, loss=SimpleNamespace(target="losses:Own"))
    output = DefaultStep(loss)(nn.Identity(), (outputs, target))
    check_mean(config, SimpleNamespace(loss=loss), output, target)


WEIGHT = torch.tensor([0.1, 5.0, 1.0])


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (nn.CrossEntropyLoss, {}),
        (nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.1, "ignore_index": 1}),
        (nn.functional.cross_entropy, {"weight": WEIGHT}),
        (Focal, {"weight": [0.1, 5.0, 1.0], "by_weight": False}),
        (Focal, {"weight": [0.1, 5.0, 1.0], "reduction": "mean"}),
        (Noisy, {}),
    ],
)
def test_a_loss_whose_mean_is_followed_passes(kind, args):
    check(kind, args)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_numbers_of_few_or_many_digits_are_compared_as_float32_at_least(dtype):
    check(nn.CrossEntropyLoss, {}, dtype=dtype)


def test_a_loss_that_divides_by_what_only_it_knows_is_refused_with_what_to_do():
    with pytest.raises(TargetError, match="loss: .* the mean of losses:Own is") as told:
        check(Focal, {"weight": [0.1, 5.0, 1.0]})
    assert "`mean`" in str(told.value)
    assert "denominator_B" in str(told.value)


def test_samples_of_which_nothing_counts_tell_nothing():
    check(nn.CrossEntropyLoss, {}, target=torch.full((6,), -100))
