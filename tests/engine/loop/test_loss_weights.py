"""An update's gradients are torch's own: the mean of a loss over all samples of the update at once.

For every loss of `torch.nn` whose mean could be lost when a batch is cut into pieces: with weights
of classes or elements, `pos_weight`, `ignore_index`, label smoothing, or many elements per sample.
"""

import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.numbers.tiny_model import batches, new_state, run_epoch
from torch import nn
from torch.nn import functional

from epochal.data.types import Batch, Window
from epochal.engine.config.mixing import MixingConfig
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.library import metrics_of, supervised_step
from epochal.engine.loop import loss_weights
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.loop.evaluate import score_samples, validate_epoch
from epochal.engine.loop.mixing import MixedBatch, MixedStep, plan_mixing
from epochal.engine.model.build import build_loss
from epochal.engine.model.precision import new_scaler
from epochal.engine.model.step import DefaultStep, StepOutput

# B samples, C classes, T positions, D inputs

COUNT, WIDTH, CLASSES, LENGTH = 45, 6, 4, 5
WEIGHT = torch.tensor([0.05, 5.0, 1.0, 0.0], dtype=torch.float64)
POSITIVE = torch.tensor([0.2, 7.0, 1.0, 3.0], dtype=torch.float64)
EXACT = {"rtol": 1e-9, "atol": 1e-12}


class Logits(nn.Module):
    """Logits (B, C), or (B, C, T) with `positions`, in float64."""

    def __init__(self, positions=0, log=False):
        super().__init__()
        self.positions, self.log = positions, log
        self.head = nn.Linear(WIDTH, CLASSES * max(positions, 1)).double()

    def forward(self, x_BD):
        out = self.head(x_BD)
        if self.positions:
            out = out.unflatten(1, (CLASSES, self.positions))
        return out.log_softmax(1) if self.log else out


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(COUNT, WIDTH, generator=generator, dtype=torch.float64), generator


def classes(positions=0, ignored=None, share=0.75):
    """Rare and frequent classes; some are `ignored`, whole micro-batches of them among these."""
    x, generator = inputs()
    shape = (COUNT, positions) if positions else (COUNT,)
    target = (torch.rand(shape, generator=generator) * 1.3).long()
    target += torch.randint(0, CLASSES - 1, shape, generator=generator) * (
        torch.rand(shape, generator=generator) < 0.3
    )
    if ignored is not None:
        target[torch.rand(shape, generator=generator) < share] = ignored
        target[8:16] = ignored
    return x, target


def numbers(*shape):
    x, generator = inputs()
    return x, torch.rand((COUNT, *shape), generator=generator, dtype=torch.float64)


def probabilities(positions=0):
    x, target = numbers(CLASSES, *((positions,) if positions else ()))
    return x, target / target.sum(1, keepdim=True)


def signs(*shape):
    x, target = numbers(*shape)
    return x, (target > 0.5).double() * 2 - 1


def several_labels():
    x, target = numbers(CLASSES)
    return x, (target > 0.5).double()


SEQUENCE = {"positions": LENGTH}
CASES = {
    "weighted classes": (nn.CrossEntropyLoss, {"weight": WEIGHT}, Logits, classes()),
    "ignored": (nn.CrossEntropyLoss, {"ignore_index": 1}, Logits, classes()),
    "ignored, default index": (nn.CrossEntropyLoss, {}, Logits, classes(ignored=-100)),
    "smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, Logits, classes()),
    "smoothed, weighted, ignored": (
        nn.CrossEntropyLoss,
        {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 7},
        Logits,
        classes(ignored=7),
    ),
    "positions, padded": (
        nn.CrossEntropyLoss, {}, lambda: Logits(LENGTH), classes(LENGTH, ignored=-100),
    ),
    "positions, weighted, padded, smoothed": (
        nn.CrossEntropyLoss,
        {"weight": WEIGHT, "label_smoothing": 0.1},
        lambda: Logits(LENGTH),
        classes(LENGTH, ignored=-100),
    ),
    "probabilities, weighted": (
        nn.CrossEntropyLoss, {"weight": WEIGHT}, Logits, probabilities(),
    ),
    "probabilities of positions, smoothed": (
        nn.CrossEntropyLoss,
        {"weight": WEIGHT, "label_smoothing": 0.1},
        lambda: Logits(LENGTH),
        probabilities(LENGTH),
    ),
    "nll, weighted, ignored": (
        nn.NLLLoss,
        {"weight": WEIGHT, "ignore_index": 2},
        lambda: Logits(log=True),
        classes(),
    ),
    "nll of positions": (
        nn.NLLLoss,
        {"weight": WEIGHT},
        lambda: Logits(LENGTH, log=True),
        classes(LENGTH, ignored=-100),
    ),
    "bce": (
        nn.BCELoss,
        {"weight": POSITIVE},
        lambda: nn.Sequential(Logits(), nn.Sigmoid()),
        several_labels(),
    ),
    "bce with logits": (
        nn.BCEWithLogitsLoss,
        {"weight": POSITIVE, "pos_weight": WEIGHT},
        Logits,
        several_labels(),
    ),
    "multilabel soft margin": (
        nn.MultiLabelSoftMarginLoss, {"weight": POSITIVE}, Logits, several_labels(),
    ),
    "multi margin": (nn.MultiMarginLoss, {"weight": POSITIVE}, Logits, classes()),
    "mse": (nn.MSELoss, {}, Logits, numbers(CLASSES)),
    "mse of positions": (nn.MSELoss, {}, lambda: Logits(LENGTH), numbers(CLASSES, LENGTH)),
    "l1": (nn.L1Loss, {}, Logits, numbers(CLASSES)),
    "smooth l1": (nn.SmoothL1Loss, {"beta": 0.3}, Logits, numbers(CLASSES)),
    "huber": (nn.HuberLoss, {"delta": 0.3}, Logits, numbers(CLASSES)),
    "poisson": (nn.PoissonNLLLoss, {}, Logits, numbers(CLASSES)),
    "soft margin": (nn.SoftMarginLoss, {}, Logits, signs(CLASSES)),
    "hinge": (nn.HingeEmbeddingLoss, {}, Logits, signs(CLASSES)),
    "divergence, mean over samples": (
        nn.KLDivLoss, {"reduction": "batchmean"}, lambda: Logits(log=True), probabilities(),
    ),
    "functional, weighted": (functional.cross_entropy, {"weight": WEIGHT}, Logits, classes()),
    "functional, padded": (
        functional.nll_loss,
        {"weight": WEIGHT},
        lambda: Logits(LENGTH, log=True),
        classes(LENGTH, ignored=-100),
    ),
    "one mean a batch": (
        nn.CrossEntropyLoss, {"weight": WEIGHT, "reduction": "mean"}, Logits, classes(),
    ),
    "one mean a batch, padded": (
        nn.CrossEntropyLoss,
        {"reduction": "mean"},
        lambda: Logits(LENGTH),
        classes(LENGTH, ignored=-100),
    ),
}  # fmt: skip
ACCUMULATE, BATCH = 3, 8


def torch_loss(kind, args):
    """The loss as torch has it, its mean over whatever batch it gets."""
    if inspect.isclass(kind):
        return kind(**args)
    return lambda output, target: kind(output, target, **args)


def test_no_loss_of_torch_whose_mean_could_be_lost_is_without_a_case():
    deprecated = {"NLLLoss2d"}
    asked = {"weight", "pos_weight", "ignore_index", "label_smoothing"}
    found = {
        name
        for name, kind in vars(nn).items()
        if name.endswith("Loss")
        and asked & set(inspect.signature(kind).parameters)
        and name not in deprecated
    }
    cases = {getattr(case[0], "__name__", "") for case in CASES.values()}
    assert found == (found & cases) | {"LinearCrossEntropyLoss"}  # of which the next test is


def test_a_loss_with_a_linear_layer_of_its_own_is_torchs_mean():
    args = {"in_features": CLASSES, "num_classes": CLASSES, "dtype": torch.float64}
    x, target = classes(ignored=-100)
    for more in ({}, {"weight": WEIGHT, "label_smoothing": 0.1}):
        loss = build_loss(nn.LinearCrossEntropyLoss, {**args, **more})
        theirs = nn.LinearCrossEntropyLoss(**args, **more)
        theirs.load_state_dict(loss.module.state_dict())
        state = new_state(Logits, torch.optim.SGD, lr=0.0)
        result = run_epoch(state, x, target, step=DefaultStep(loss), batch_size=9, accumulate=5)
        expected = theirs(state.model(x), target)
        expected.backward()
        norm = nn.utils.get_total_norm([p.grad for p in state.model.parameters()]).item()
        assert result.updates["train/loss"][0] == pytest.approx(expected.item(), rel=1e-9)
        assert result.updates["gradients/norm"][0] == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("accumulate", [1, ACCUMULATE])
@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_torchs_mean_over_each_update(name, accumulate):
    kind, args, make, (x, target) = CASES[name]
    ours, theirs = (new_state(make, torch.optim.SGD, lr=0.3) for _ in range(2))
    step = DefaultStep(build_loss(kind, args))
    result = run_epoch(ours, x, target, step=step, accumulate=accumulate, batch_size=BATCH)
    criterion, losses, norms = torch_loss(kind, args), [], []
    for low in range(0, COUNT, BATCH * accumulate):
        rows = slice(low, low + BATCH * accumulate)
        loss = criterion(theirs.model(x[rows]), target[rows])
        if math.isnan(loss.item()):  # torch's 0 / 0: nothing counts in this update
            losses.append(0.0)
            norms.append(0.0)
            continue
        losses.append(loss.item())
        theirs.optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.get_total_norm([p.grad for p in theirs.model.parameters()]).item())
        theirs.optimizer.step()
    for key, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[key], tensor, **EXACT)
    np.testing.assert_allclose(result.updates["train/loss"], losses, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.updates["gradients/norm"], norms, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, COUNT])
@pytest.mark.parametrize("name", CASES)
def test_a_validations_loss_is_torchs_mean_over_the_whole_set(name, batch_size):
    kind, args, make, (x, target) = CASES[name]
    model = new_state(make).model
    found = validate_epoch(
        model,
        batches(x, target, batch_size=batch_size),
        step=DefaultStep(build_loss(kind, args)),
        metrics=metrics_of("loss"),
    )
    expected = torch_loss(kind, args)(model(x), target).item()
    assert found.values["loss"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if "reduction" not in CASES[name][1]])
def test_a_samples_loss_in_the_tables_is_torchs_mean_of_that_sample_alone(name):
    kind, args, make, (x, target) = CASES[name]
    model = new_state(make).model
    found = score_samples(
        model,
        batches(x, target, batch_size=7),
        step=DefaultStep(build_loss(kind, args)),
    )
    criterion = torch_loss(kind, args)
    for row in range(COUNT):
        expected = criterion(model(x[row : row + 1]), target[row : row + 1]).item()
        if math.isfinite(expected):  # else nothing of it counts
            assert found["loss"][row] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_an_epochs_mean_loss_is_torchs_over_all_that_it_saw():
    x, target = classes(LENGTH, ignored=-100)
    state = new_state(lambda: Logits(LENGTH), torch.optim.SGD, lr=0.0)
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT}))
    result = run_epoch(state, x, target, step=step, accumulate=2)
    expected = functional.cross_entropy(state.model(x), target, weight=WEIGHT).item()
    assert result.mean_loss == pytest.approx(expected, rel=1e-6)
    one = DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT, "reduction": "mean"}))
    again = run_epoch(state, x, target, step=one, accumulate=2)
    assert again.mean_loss == pytest.approx(expected, rel=1e-6)


def test_weights_of_a_policy_multiply_the_losses_and_not_what_they_are_divided_by():
    x, target = classes(LENGTH, ignored=-100)
    policy = torch.linspace(0.5, 3.0, COUNT)
    state = new_state(lambda: Logits(LENGTH), torch.optim.SGD, lr=0.0)
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT}))
    result = run_epoch(state, x, target, step=step, weights=policy, batch_size=9, accumulate=5)
    with torch.no_grad():
        losses = functional.cross_entropy(state.model(x), target, weight=WEIGHT, reduction="none")
    counted = target != -100
    expected = (losses.sum(1) * policy).sum() / WEIGHT[target[counted]].sum()
    assert result.updates["train/loss"][0] == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_divides_as_full_precision_does(dtype):
    x, target = classes(LENGTH, ignored=-100)
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT.float()}))
    results = []
    for precision in (PrecisionConfig(), PrecisionConfig(dtype=dtype)):
        state = new_state(lambda: Logits(LENGTH).float(), torch.optim.SGD, lr=0.01)
        state.scaler = new_scaler(precision, torch.device("cpu"))
        results.append(
            run_epoch(state, x.float(), target, step=step, accumulate=3, precision=precision)
        )
    for name in ("train/loss", "gradients/norm"):
        exact, half = (result.updates[name] for result in results)
        np.testing.assert_allclose(half, exact, rtol=0.03, err_msg=name)


def test_an_update_in_which_nothing_counts_changes_nothing():
    x, target = classes()
    target[:] = -100
    state = new_state(Logits, torch.optim.SGD, lr=0.3)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {}))
    result = run_epoch(state, x, target, step=step, accumulate=2)
    assert result.updates["train/loss"].tolist() == [0.0] * 3
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("name", CASES)
def test_a_device_that_is_not_waited_for_gives_the_same_numbers(name, monkeypatch):
    kind, args, make, (x, target) = CASES[name]
    step = DefaultStep(build_loss(kind, args))
    here, there = (new_state(make, torch.optim.SGD, lr=0.3) for _ in range(2))
    expected = run_epoch(here, x, target, step=step, accumulate=ACCUMULATE)
    monkeypatch.setattr(loss_weights, "reads_at_once", lambda _: False)
    result = run_epoch(there, x, target, step=step, accumulate=ACCUMULATE)
    for key, tensor in here.model.state_dict().items():
        torch.testing.assert_close(there.model.state_dict()[key], tensor, **EXACT)
    np.testing.assert_allclose(result.updates["train/loss"], expected.updates["train/loss"])


def test_lengths_that_differ_from_batch_to_batch_count_by_their_tokens():
    """A language model, each batch padded to its own longest text."""
    generator = torch.Generator().manual_seed(0)
    embed = nn.Embedding(CLASSES, CLASSES, dtype=torch.float64)
    pieces = []
    for index, length in enumerate([3, 11, 7]):
        tokens = torch.randint(CLASSES, (4, length), generator=generator)
        pieces.append(
            Batch(
                data=(tokens, tokens.roll(-1, 1)),
                sample_ids_B=np.arange(4) + 4 * index,
                window=Window(12, last=index == 2),
                index=index,
            )
        )

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = embed

        def forward(self, tokens):
            return self.embed(tokens).movedim(-1, 1)

    state = new_state(Model, torch.optim.SGD, lr=0.0)
    result = train_epoch(
        state, pieces, Recipe(supervised_step(nn.CrossEntropyLoss)), epoch=0, num_updates=1
    )
    outputs = [state.model(piece.data[0]) for piece in pieces]
    logits = torch.cat([output.movedim(1, 2).flatten(0, 1) for output in outputs])
    labels = torch.cat([piece.data[1].flatten() for piece in pieces])
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    assert result.updates["train/loss"][0] == pytest.approx(loss.item(), rel=1e-9)
    norm = state.model.embed.weight.grad.norm().item()
    assert result.updates["gradients/norm"][0] == pytest.approx(norm, rel=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_mixture_divides_by_what_its_classes_count(smoothing):
    x, target = classes(ignored=-100, share=0.2)
    config = MixingConfig(mixup=1.0, label_smoothing=smoothing)
    state = new_state(Logits, torch.optim.SGD, lr=0.0)
    args = {"weight": WEIGHT}
    step = MixedStep(DefaultStep(build_loss(nn.CrossEntropyLoss, args)))
    result = run_epoch(state, x, target, step=step, mixing=config, batch_size=COUNT)
    ids = np.arange(COUNT) * 10
    plan = plan_mixing(config, ids, seed=5, epoch=0, size_HW=None)
    share = torch.tensor(plan.share_B.astype(np.float32)).double()
    partner = torch.from_numpy(plan.partner_B)
    mixed = x * share[:, None] + x[partner] * (1 - share)[:, None]
    logits = state.model(mixed)

    def sums(labels):
        numerator = functional.cross_entropy(
            logits, labels, weight=WEIGHT, label_smoothing=smoothing, reduction="none"
        )
        return numerator, WEIGHT[labels.clamp(min=0)] * (labels >= 0)

    (own, own_count), (other, other_count) = sums(target), sums(target[partner])
    expected = (own * share + other * (1 - share)).sum()
    expected = expected / (own_count * share + other_count * (1 - share)).sum()
    expected.backward()
    norm = nn.utils.get_total_norm([p.grad for p in state.model.parameters()]).item()
    assert result.updates["train/loss"][0] == pytest.approx(expected.item(), rel=1e-6)
    assert result.updates["gradients/norm"][0] == pytest.approx(norm, rel=1e-6)


def test_a_mixture_in_equal_shares_is_that_of_the_two_means():
    """The usual loop: share · criterion(output, a) + (1 − share) · criterion(output, b)."""
    logits = torch.randn(12, CLASSES, dtype=torch.float64)
    target = torch.randint(CLASSES, (12,))
    share = torch.full((12,), 0.7, dtype=torch.float64)
    batch = MixedBatch(logits, target, target.roll(1), share)
    output = MixedStep(DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT})))(
        nn.Identity(), batch
    )
    criterion = nn.CrossEntropyLoss(weight=WEIGHT)
    expected = 0.7 * criterion(logits, target) + 0.3 * criterion(logits, target.roll(1))
    torch.testing.assert_close(output.loss_B.sum() / output.denominator_B.sum(), expected)


def test_a_step_of_ones_own_says_what_its_mean_divides_by():
    x, target = classes(LENGTH, ignored=-100)

    def step(model, batch):
        logits = model(batch[0])
        losses = functional.cross_entropy(logits, batch[1], reduction="none")
        counted = (batch[1] != -100).sum(1)
        return StepOutput(
            losses.sum(1), logits, parts={"own": losses.sum(1)}, denominator_B=counted
        )

    ours, theirs = (new_state(lambda: Logits(LENGTH), torch.optim.SGD, lr=0.3) for _ in range(2))
    result = run_epoch(ours, x, target, step=step, accumulate=3)
    expected = run_epoch(theirs, x, target, step=supervised_step(nn.CrossEntropyLoss), accumulate=3)
    for key, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[key], tensor, **EXACT)
    np.testing.assert_allclose(result.updates["train/loss/own"], expected.updates["train/loss"])


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("stop_at", [1, 2, 4, 5])
def test_an_epoch_that_goes_on_within_an_update_has_the_same_bits(stop_at, waits, monkeypatch):
    monkeypatch.setattr(loss_weights, "reads_at_once", lambda _: waits)
    x, target = classes(LENGTH, ignored=-100)
    step = DefaultStep(build_loss(nn.CrossEntropyLoss, {"weight": WEIGHT}))
    kept = []

    def keep(progress):
        if progress.micro_steps == stop_at:
            weights = progress.state.model.state_dict()
            state = {key: tensor.clone() for key, tensor in weights.items()}
            captured = progress.capture()
            gradients = {name: one.clone() for name, one in captured.gradients.items()}
            kept.append((state, captured, gradients))

    whole = new_state(lambda: Logits(LENGTH), torch.optim.SGD, lr=0.3)
    expected = run_epoch(whole, x, target, step=step, accumulate=3, on_progress=keep)
    ((weights, captured, gradients),) = kept
    again = new_state(lambda: Logits(LENGTH), torch.optim.SGD, lr=0.3)
    again.model.load_state_dict(weights)
    again.updates_done = captured.updates
    result = run_epoch(
        again, x, target, step=step, accumulate=3, start=stop_at,
        resume=replace(captured, gradients=gradients),
    )  # fmt: skip
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key])
    assert np.array_equal(result.updates["train/loss"], expected.updates["train/loss"])
    assert np.array_equal(result.observations["denominator"], expected.observations["denominator"])
    assert result.mean_loss == expected.mean_loss
