"""Model, loss and optimizer from their targets, and what each refuses."""

import functools
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from support.numbers.tiny_model import Net
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.model.batches import split_batch, to_device
from epochal.engine.model.build import build_loss, build_model, build_optimizer
from epochal.engine.model.state import TrainingState
from epochal.engine.model.step import DefaultStep

LOGITS, LABELS = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, -100])


def test_a_seed_gives_the_weights_and_leaves_the_generators_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    one = build_model(Net, seed=3)
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(123)
    other, third = build_model(Net, seed=3), build_model(Net, seed=4)
    assert torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.head.weight, third.head.weight)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: 3, "returned a int, expected a torch.nn.Module"),
        (lambda: nn.LazyLinear(3), "has no shape yet"),
        (nn.ReLU, "nothing to train"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "nothing to train"),
    ],
)
def test_what_is_no_model_is_refused(make, words):
    with pytest.raises(TargetError, match=words):
        build_model(make, seed=0)


def custom(output, target):
    return (output.softmax(1)[:, 0] - target.float()).abs()


def scaled(output, target, *, scale, reduction="mean"):
    losses = nn.functional.cross_entropy(output, target, reduction="none") * scale
    return losses if reduction == "none" else losses.mean()


def make_loss(smoothing):
    return nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")


@pytest.mark.parametrize(
    ("factory", "args", "per_sample", "ignored"),
    [
        (nn.CrossEntropyLoss, {}, True, -100),
        (nn.CrossEntropyLoss, {"ignore_index": 2, "label_smoothing": 0.1}, True, 2),
        (nn.CrossEntropyLoss, {"reduction": "mean"}, False, -100),
        (nn.functional.cross_entropy, {}, True, -100),
        (scaled, {"scale": 2.0}, True, None),
        (custom, {}, False, None),
        (nn.NLLLoss, {}, True, -100),
    ],
)
def test_a_loss_is_taken_per_sample_where_it_can_be(factory, args, per_sample, ignored):
    loss = build_loss(factory, args)
    assert (loss.per_sample, loss.ignore_index) == (per_sample, ignored)
    found = loss.function(LOGITS, LABELS.clamp(min=0))
    assert found.shape == ((5,) if per_sample or factory is custom else ())


def test_a_factory_may_return_the_loss():
    loss = build_loss(make_loss, {"smoothing": 0.1})
    assert loss.function(LOGITS, LABELS).shape == (5,)
    assert isinstance(loss.module, nn.CrossEntropyLoss)


def test_a_summed_loss_is_refused():
    with pytest.raises(TargetError, match="reduction: found 'sum'"):
        build_loss(nn.CrossEntropyLoss, {"reduction": "sum"})


def test_a_loss_over_positions_is_a_sum_and_a_count_without_the_ignored():
    logits, labels = torch.randn(3, 4, 5), torch.randint(4, (3, 5))
    labels[1, 2:] = -100
    output = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))(nn.Identity(), (logits, labels))
    assert output.denominator_B.tolist() == [5, 2, 5]
    for row in range(3):
        expected = nn.functional.cross_entropy(logits[row : row + 1], labels[row : row + 1])
        torch.testing.assert_close(output.loss_B[row] / output.denominator_B[row], expected)


def test_losses_that_broadcast_are_an_error_instead_of_a_warning():
    step = DefaultStep(build_loss(nn.L1Loss, {}))
    with (
        pytest.warns(UserWarning, match="broadcast"),
        pytest.raises(TargetError, match="of neither's shape"),
    ):
        step(nn.Identity(), (torch.ones(4, 1), torch.ones(4)))


def test_only_trained_parameters_reach_the_optimizer():
    model = Net()
    model.body.requires_grad_(False)
    optimizer = build_optimizer(model, torch.optim.SGD, {"lr": 0.1})
    assert len(optimizer.param_groups[0]["params"]) == 2


class Sharpness(torch.optim.SGD):
    """As public implementations of sharpness-aware minimization have it."""

    def step(self, closure=None):
        assert closure is not None, "Sharpness Aware Minimization requires closure"


class Square(torch.optim.SGD):
    """Takes no parameter but one of its own shape."""

    def step(self, closure=None):
        for group in self.param_groups:
            if any(one.shape == (2, 2) for one in group["params"]):
                raise ValueError("this shape does not fit")


def test_without_an_optimizer_a_state_has_the_same_parameters_and_the_compiler_stays_out():
    code = """
import sys
import torch
from epochal.engine.model.build import NoOptimizer
from epochal.engine.model.state import TrainingState
model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
model[1].weight.requires_grad_(False)
state = TrainingState(model, NoOptimizer(model))
print(*state.trainable, "torch._dynamo" in sys.modules)
try:
    state.optimizer.step()
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "0.weight 0.bias 1.bias False",
        "a model that was built without its optimizer is not trained",
    ]


def test_an_optimizer_that_a_made_up_parameter_does_not_suit_is_taken():
    model, before = Net(), torch.get_rng_state()
    assert isinstance(build_optimizer(model, Square, {"lr": 0.1}), Square)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("factory", "args", "words"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentun": 1}, "SGD refuses them: .*momentun"),
        (torch.optim.AdamW, {"lr": 0.1, "betas": [2, 0]}, "AdamW refuses them: .*beta"),
        (torch.optim.LBFGS, {"lr": 0.1}, "a closure"),
        (Sharpness, {"lr": 0.1}, "Sharpness asks for a closure.* can be a `step`"),
        (lambda parameters, lr: 3, {"lr": 0.1}, "returned a int"),
        (
            lambda parameters, lr: [torch.optim.SGD([one], lr=lr) for one in parameters],
            {"lr": 0.1},
            "returned a list of 6, .* a run has one, .*`optimizer.groups`, and a GAN's two losses",
        ),
    ],
)
def test_an_optimizer_that_cannot_be_used_is_named(factory, args, words):
    with pytest.raises(TargetError, match=words):
        build_optimizer(Net(), factory, args)


def test_a_parameter_that_is_not_the_models_is_refused():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(TargetError, match="not the model's"):
        TrainingState(model=Net(), optimizer=optimizer)


def test_a_rate_that_is_no_number_is_refused():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    with pytest.raises(TargetError, match="expected a number"):
        TrainingState(model=model, optimizer=optimizer)


@pytest.mark.parametrize(
    "batch",
    [
        (1, 2), [1, 2], {"input": 1, "target": 2}, {"image": 1, "label": 2},
        {"inputs": 1, "labels": 2, "sample_id": 3},
    ],
)  # fmt: skip
def test_batches_of_the_usual_forms_are_understood(batch):
    assert split_batch(batch) == (1, 2)


@pytest.mark.parametrize(
    ("batch", "words"),
    [((1, 2, 3), "3 parts"), ({"x": 1, "y": 2}, "a dict of x, y"), (5, "a int")],
)
def test_other_batches_need_a_step(batch, words):
    with pytest.raises(TargetError, match=f"found {words}; say which by `batch: .* give a `step:`"):
        split_batch(batch)


def test_every_tensor_of_a_batch_goes_to_the_device():
    class Pair(NamedTuple):
        a: torch.Tensor
        b: str

    batch = {"x": (torch.ones(1), [torch.ones(1)]), "pair": Pair(torch.ones(1), "text")}
    moved = to_device(batch, torch.device("meta"))
    assert moved["x"][0].device.type == moved["x"][1][0].device.type == "meta"
    assert moved["pair"].a.device.type == "meta"
    assert moved["pair"].b == "text"


def test_partial_functions_are_losses_too():
    loss = build_loss(functools.partial(scaled, scale=3.0), {})
    assert loss.per_sample
    assert loss.function(LOGITS, LABELS.clamp(min=0)).shape == (5,)
