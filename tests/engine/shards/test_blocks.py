"""Which parts of a model are gathered at once, and which parameters cannot lie in slices."""

import pytest
import torch
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.shards.blocks import blocks_of


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.one = nn.Linear(2, 2, bias=False)
        self.more = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.embedding = nn.Embedding(3, 2)
        self.position = nn.Parameter(torch.ones(2))


class Model(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.inner = Inner()
        self.activation = nn.ReLU()
        self.head = nn.Linear(2, 3, bias=False)
        if tied:
            self.head.weight = self.inner.embedding.weight


def named(model, class_names=()):
    return {block.name: list(block.parameters) for block in blocks_of(model, class_names)}


LAYER = [["one.weight", "more.0.weight", "scale"]]


def of_layer(name):
    return [f"{name}.{one}" for one in LAYER[0]]


def test_layers_of_containers_and_children_without_one_are_blocks():
    assert named(Model()) == {
        "inner.layers.0": of_layer("inner.layers.0"),
        "inner.layers.1": of_layer("inner.layers.1"),
        "inner.embedding": ["inner.embedding.weight"],
        "head": ["head.weight"],
        "": ["inner.position"],
    }


def test_a_parameter_of_two_blocks_belongs_to_the_model_itself():
    found = named(Model(tied=True))
    assert set(found) == {"inner.layers.0", "inner.layers.1", ""}
    assert found[""] == ["inner.embedding.weight", "inner.position"]


def test_classes_that_are_named_are_the_blocks():
    found = named(Model(), ["Inner"])
    assert set(found) == {"inner", ""}
    assert found[""] == ["head.weight"]


def test_a_class_that_is_not_there_is_an_error():
    with pytest.raises(TargetError, match="no module of Model is a Block"):
        blocks_of(Model(), ["Layer", "Block"])


def with_hook():
    model = nn.Linear(2, 2)
    model.weight.register_hook(lambda gradient: gradient)
    return model


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Sequential(nn.LSTM(2, 2)), "0 is a LSTM, which keeps its weights"),
        (lambda: nn.Embedding(3, 2, sparse=True), "sparse gradients"),
        (lambda: nn.ParameterList([torch.ones(())]), r"0 is torch\.float32 of shape \(\)"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "expected real numbers"),
        (lambda: nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last), "channels_last"),
        (with_hook, "weight has a hook on its gradient"),
    ],
)
def test_what_cannot_lie_in_slices_is_refused_by_name(make, words):
    with pytest.raises(TargetError, match=words):
        blocks_of(make())
