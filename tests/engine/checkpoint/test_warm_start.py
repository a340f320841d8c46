"""Weights of another training into a model: what differs is named, and nothing is left out."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.numbers.tiny_model import Net, new_state
from torch import nn

from epochal.data.errors import StateMismatch
from epochal.engine.checkpoint.serialize import model_tensors
from epochal.engine.checkpoint.warm_start import load_start


def tensors_of(seed=9, make=Net):
    return {
        name: one.clone() for name, one in model_tensors(new_state(make, seed=seed).model).items()
    }


def test_all_tensors_are_taken():
    model, tensors = new_state().model, tensors_of()
    assert load_start(model, tensors, strict=True) == len(tensors)
    for name, one in model.state_dict().items():
        assert torch.equal(one, tensors[name])


def test_half_precision_is_converted():
    model = new_state().model
    tensors = {
        name: one.half() if one.is_floating_point() else one for name, one in tensors_of().items()
    }
    load_start(model, tensors, strict=True)
    assert model.head.weight.dtype == torch.float32
    assert torch.equal(model.head.weight, tensors["head.weight"].float())


def other_head():
    tensors = tensors_of()
    tensors["head.weight"] = torch.zeros(7, 8)
    tensors["head.bias"] = torch.zeros(7)
    tensors["teacher.weight"] = torch.zeros(2)
    del tensors["body.0.bias"]
    return tensors


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "body.0.bias: not in the file; teacher.weight: in the file, but not in the model"),
        ({"allow_missing": ["head.*", "body.*"]}, "teacher.weight: in the file"),
        (
            {"allow_missing": ["body.0.bias"], "allow_unexpected": ["teacher.*"]},
            r"head.bias: the file has \(7,\), the model wants \(4,\)|head.weight: the file has",
        ),
        ({"strict": False}, "the model wants"),
    ],
)
def test_what_differs_and_is_not_allowed_is_named(options, problem):
    state = new_state()
    before = {name: one.clone() for name, one in state.model.state_dict().items()}
    with pytest.raises(StateMismatch, match=problem):
        load_start(state.model, other_head(), **{"strict": True, **options})
    for name, one in state.model.state_dict().items():
        assert torch.equal(one, before[name]), "nothing was taken"


def test_what_may_differ_keeps_the_initial_weights():
    model, tensors = new_state().model, other_head()
    initial = model.head.weight.clone()
    taken = load_start(
        model, tensors, strict=True, allow_missing=["head.*", "body.0.bias"],
        allow_unexpected=["teacher.*"],
    )  # fmt: skip
    assert taken == len(model.state_dict()) - 3
    assert torch.equal(model.head.weight, initial)
    assert torch.equal(model.body[0].weight, tensors["body.0.weight"])


def test_a_file_of_which_nothing_fits_is_an_error_however_lenient():
    with pytest.raises(StateMismatch, match="training would start from scratch"):
        load_start(new_state().model, {"module.head.weight": torch.zeros(2)}, strict=False)


def test_tied_weights_and_buffers_come_with_them(tmp_path):
    class Tied(Net):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(8, 4)
            self.other.weight = self.head.weight

    tensors = tensors_of(make=Tied)
    tensors["body.1.running_mean"].fill_(3.0)
    save_file({name: one.clone() for name, one in tensors.items()}, tmp_path / "w.safetensors")
    model = new_state(Tied).model
    load_start(model, load_file(tmp_path / "w.safetensors"), strict=True)
    assert model.other.weight is model.head.weight
    assert float(model.body[1].running_mean[0]) == 3.0
