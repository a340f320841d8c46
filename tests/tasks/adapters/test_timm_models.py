"""A model of timm: its images are normalised, what has no weight decay is named.

timm itself does not import beside a CPU build of torch: a module of its name stands for it here.
"""

import logging
import sys
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn

from epochal.data.errors import TargetError
from epochal.tasks.adapters import timm


class Made(nn.Sequential):
    pretrained_cfg: ClassVar = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.5, 0.25)}

    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(12, num_classes))
        self.pos_embed = nn.Parameter(torch.zeros(1))

    def no_weight_decay(self):
        return {"pos_embed", "dist_token"}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    def create_model(model_name, pretrained, num_classes):
        if model_name != "tiny":
            raise RuntimeError(f"Unknown model ({model_name})")
        return Made(num_classes)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))


def test_images_are_normalised_by_the_models_own_numbers_and_its_names_stay():
    model = timm("tiny", num_classes=3)
    image = torch.rand(2, 3, 2, 2)
    mean, std = (
        torch.tensor(Made.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std")
    )
    torch.testing.assert_close(model(image), nn.Sequential.forward(model, (image - mean) / std))
    assert set(model.state_dict()) == {"pos_embed", "1.weight", "1.bias"}
    plain = timm("tiny", normalize=False, num_classes=3)
    torch.testing.assert_close(plain(image), nn.Sequential.forward(plain, image))


def test_images_of_bytes_are_refused_by_name():
    with pytest.raises(TargetError, match="floats from 0 to 1; found torch.uint8"):
        timm("tiny", num_classes=3)(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))


def test_what_has_no_weight_decay_is_named_with_the_groups_for_it(caplog):
    with caplog.at_level(logging.WARNING):
        timm("tiny", num_classes=3)
    assert "optimizer.groups: [{match: pos_embed, weight_decay: 0}]" in caplog.text


def test_a_name_that_timm_does_not_know_is_told():
    with pytest.raises(TargetError, match=r"create_model\('huge'\).*Unknown model"):
        timm("huge", num_classes=3)
