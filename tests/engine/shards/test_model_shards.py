"""A model of which each process holds a slice: the bytes of one process that holds it all."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from support.numbers.processes import in_group
from support.numbers.sliced_state import own_batches, sliced_group, whole_bits
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, num_updates, samples
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.config.numerics import EmaConfig, GradientsConfig, PrecisionConfig
from epochal.engine.library import metrics_of
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.loop.evaluate import score_samples, validate_epoch
from epochal.engine.model.companions import companions_of
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.model_shards import rows_of
from epochal.engine.shards.shard_state import EACH_BY_ITSELF, shard_state

ACCUMULATE, SIZE = 8, 4


def trained(exchange, shards, count, optimizer=torch.optim.AdamW, **gradients):
    """Weights, optimizer, average and tables after two epochs with a validation between."""
    torch.set_num_threads(1)
    state = new_state(optimizer=optimizer)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    group = None if exchange is None else sliced_group(state, exchange, shards)
    x, y = samples(count)
    weights = torch.linspace(0.5, 1.5, count)
    tables = []
    validated(state, group, x, y)  # the first pass of a process may be one without gradients
    for epoch in range(2):
        found = batches(x, y, batch_size=SIZE, accumulate=ACCUMULATE, weights=weights)
        result = train_epoch(
            state,
            found if group is None else own_batches(found, group),
            Recipe(
                cross_entropy(weight=torch.tensor([1.0, 2.0, 0.5, 1.0])),
                gradients=GradientsConfig(accumulate=ACCUMULATE, shards=shards, **gradients),
                seed=5,
            ),
            epoch=epoch,
            num_updates=num_updates(count, batch_size=SIZE, accumulate=ACCUMULATE),
            group=group,
        )
        tables.append({name: one.tobytes() for name, one in result.updates.items()})
        if group is None or group.first:
            tables.append({name: one.tobytes() for name, one in result.observations.items()})
        measured = validated(state, group, x, y)
        if group is None or group.first:
            tables.append(measured)
    return (bits(state) if exchange is None else whole_bits(state, exchange)), tables


def validated(state, group, x, y):
    def found():
        every = batches(x, y, batch_size=SIZE)
        if group is None:
            yield from every
            return
        for turn in range(-(-len(every) // group.size)):
            place = turn * group.size + group.rank
            yield every[place] if place < len(every) else own_empty(every[0])

    result = validate_epoch(
        state.model, found(), step=cross_entropy(), metrics=metrics_of("accuracy"), group=group
    )
    scores = score_samples(state.model, found(), step=cross_entropy(), group=group)
    return result.values, {name: one.tobytes() for name, one in scores.items()}


def own_empty(batch):
    return replace(batch, data=None, sample_ids_B=np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("size", "shards", "count"),
    [
        pytest.param(3, 8, 98, marks=pytest.mark.slow),
        (2, 4, 100),
        pytest.param(4, 4, 98, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_processes_gives_the_bytes_of_one(size, shards, count, tmp_path):
    options = {"clip_norm": 0.3, "update_ratio": True}
    alone = trained(None, shards, count, **options)
    found = in_group(trained_clipped, size, tmp_path, shards, count)
    for whole, _ in found:
        assert whole == alone[0]
    assert found[0][1] == alone[1]


def trained_clipped(exchange, shards, count):
    return trained(exchange, shards, count, clip_norm=0.3, update_ratio=True)


class Tied(nn.Module):
    """A layer that is called twice, nested containers, and a head with the embedding's weights."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict(
            {
                "first": nn.Linear(6, 5),
                "layers": nn.ModuleList([nn.Linear(5, 5), nn.Sequential(nn.Linear(5, 5))]),
            }
        )
        self.embedding = nn.Embedding(4, 5)
        self.head = nn.Linear(5, 4, bias=False)
        self.head.weight = self.own = self.embedding.weight  # by its third name in the optimizer
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.inner["first"](x)
        for layer in self.inner["layers"]:
            x = torch.tanh(layer(x))
        x = self.inner["layers"][0](x)
        return self.head(x + self.embedding(x.argmax(1) % 4))


def tied(exchange, dtype):
    torch.set_num_threads(1)
    state = new_state(Tied, weight_decay=0.1)
    group = None if exchange is None else sliced_group(state, exchange, 2)
    x, y = samples(44)
    found = batches(x, y, batch_size=4, accumulate=4)
    result = train_epoch(
        state,
        found if group is None else own_batches(found, group),
        Recipe(
            cross_entropy(),
            gradients=GradientsConfig(accumulate=4, shards=2, clip_value=0.05, clip_norm=0.1),
            precision=PrecisionConfig(dtype=dtype),
        ),
        epoch=0,
        num_updates=3,
        group=group,
    )
    updates = {name: one.tobytes() for name, one in result.updates.items()}
    return (bits(state) if exchange is None else whole_bits(state, exchange)), updates


class Changing(nn.Module):
    """One whose forward pass leaves out a layer in some processes; or a part of one."""

    def __init__(self, leaves_out):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Bilinear(6, 6, 4)
        self.c = nn.Linear(6, 4)
        self.leaves_out = leaves_out

    def forward(self, x):
        if self.leaves_out == "a layer":
            return self.c(x)
        if self.leaves_out == "a bias":
            return nn.functional.linear(x, self.b.weight[:, 0])
        return self.c(self.a(x))


class Whole(nn.Module):
    """Calls what its only block is, so that parts of it may be left out."""

    def __init__(self, leaves_out):
        super().__init__()
        self.inner = Changing(leaves_out)

    def forward(self, x):
        return self.inner(x)


def refused(exchange, make, class_names=()):
    """What training says of a model."""
    state = new_state(make)
    x, y = samples(16)
    try:
        group = sliced_group(state, exchange, 2, class_names)
        train_epoch(
            state,
            own_batches(batches(x, y, batch_size=4, accumulate=4), group),
            Recipe(cross_entropy(), gradients=GradientsConfig(accumulate=4, shards=2)),
            epoch=0,
            num_updates=1,
            group=group,
        )
    except TargetError as error:
        return str(error)
    return "none"


class Keeping(nn.Module):
    """Has a list of its weights beside its modules."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.kept = [self.layer.weight]

    def forward(self, x):
        return nn.functional.linear(x, self.kept[0])


def many(exchange):
    """Several things that two processes do, one after the other."""
    torch.set_num_threads(1)
    leaves_out = "a layer" if exchange.rank else None
    state = new_state()
    sliced_group(state, exchange, 2)
    return {
        "float32": tied(exchange, "float32"),
        "bfloat16": tied(exchange, "bfloat16"),
        "a layer": refused(exchange, partial(Changing, leaves_out)),
        "a bias": refused(exchange, partial(Whole, "a bias"), ("Changing",)),
        "kept": refused(exchange, Keeping),
        "numbers": sum(one.numel() for one in state.named_parameters().values()),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return in_group(many, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tied_weights_layers_called_twice_and_unused_ones_give_the_bytes_of_one(found, dtype):
    alone = tied(None, dtype)
    for one in found:
        assert one[dtype] == alone


def test_each_process_holds_its_part_alone(found):
    whole = sum(one.numel() for one in new_state().model.parameters())
    assert [one["numbers"] for one in found] == [whole // 2, whole // 2]


def test_forward_passes_that_differ_are_an_error_and_no_hang(found):
    for one in found:
        assert "they are at the forward or backward pass of a" in one["a layer"]


def test_a_block_of_which_a_part_gets_no_gradient_is_refused(found):
    for one in found:
        assert "some parameters of inner got no gradient" in one["a bias"]


def test_weights_that_are_kept_elsewhere_are_refused(found):
    for one in found:
        assert "something beside its module keeps layer.weight" in one["kept"]


class Alone:
    """An exchange of which only rank and size are asked."""

    rank, size = 0, 2


class NormScaled(torch.optim.SGD):
    """As LARS: each tensor's step goes by its norm."""


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (NormScaled, "the optimizer is NormScaled"),
        (partial(torch.optim.AdamW, fused=True), "AdamW, fused"),
    ],
)
def test_an_optimizer_that_rounds_slices_otherwise_is_refused(optimizer, words):
    with pytest.raises(TargetError, match=words):
        shard_state(new_state(optimizer=optimizer), Alone(), device=torch.device("cpu"), shards=2)


def test_parameters_of_the_loss_are_refused():
    model, centers = nn.Linear(2, 2), nn.Linear(2, 1)
    state = TrainingState(
        model=model,
        optimizer=torch.optim.SGD([*model.parameters(), *centers.parameters()], lr=0.1),
        companions=companions_of(loss=centers),
    )
    with pytest.raises(TargetError, match=r"loss\.weight of the loss or step is trained"):
        shard_state(state, Alone(), device=torch.device("cpu"), shards=2)


@pytest.mark.parametrize("kind", sorted(EACH_BY_ITSELF, key=lambda kind: kind.__name__))
def test_optimizers_that_are_allowed_round_slices_as_wholes(kind):
    generator = torch.Generator().manual_seed(0)
    whole = nn.Parameter(torch.randn(1003, generator=generator))
    cuts = [7, 13, 501, 1, 481]
    parts = [nn.Parameter(one.clone()) for one in whole.detach().split(cuts)]
    one, other = kind([whole], lr=0.1), kind(parts, lr=0.1)
    for _ in range(4):
        whole.grad = torch.randn(1003, generator=generator)
        for part, gradient in zip(parts, whole.grad.split(cuts), strict=True):
            part.grad = gradient.clone()
        one.step()
        other.step()
    assert torch.equal(torch.cat([part.detach() for part in parts]), whole.detach())


@pytest.mark.parametrize(("length", "size"), [(10, 4), (3, 4), (8, 2), (1, 1), (5, 4)])
def test_rows_are_those_of_torch_chunk(length, size):
    found = [list(rows_of(length, rank, size)) for rank in range(size)]
    chunks = [one.tolist() for one in torch.arange(length).chunk(size)]
    assert found == chunks + [[]] * (size - len(chunks))
