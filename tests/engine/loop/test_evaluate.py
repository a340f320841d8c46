"""Validation: exact over the data set whatever the batch size; the model stays as it was."""

import copy

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.evaluation import metrics, validate
from support.numbers.tiny_model import (
    Net,
    batches,
    bits,
    cross_entropy,
    new_state,
    run_epoch,
    samples,
)
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.library import metrics_of, supervised_step
from epochal.engine.loop.evaluate import score_samples, validate_epoch
from epochal.engine.model.step import StepOutput


def test_values_are_those_of_the_whole_data_set_at_once():
    state, (x, y) = new_state(), samples(41)
    found = validate(state, x, y)
    state.model.eval()
    logits = state.model(x).detach()
    assert found.num_samples == 41
    assert found.values["accuracy"] == pytest.approx(float((logits.argmax(1) == y).double().mean()))
    assert found.values["top5_accuracy"] == 1.0
    assert found.values["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, y)))
    assert list(found.values) == ["accuracy", "top5_accuracy", "loss"]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.integers(1, 60))
def test_the_batch_size_does_not_matter(count, batch_size):
    state, (x, y) = new_state(), samples(count)
    one, other = validate(state, x, y, batch_size=batch_size), validate(state, x, y, batch_size=60)
    assert one.values["accuracy"] == other.values["accuracy"]
    assert one.values["loss"] == pytest.approx(other.values["loss"], rel=1e-6)


def test_the_model_and_the_generators_stay_as_they_were():
    state, (x, y) = new_state(), samples(20)
    before = copy.deepcopy(bits(state))
    state.model.train()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    validate(state, x, y)
    assert torch.equal(torch.rand(1), expected)
    assert state.model.training
    assert bits(state) == before


class Counts(nn.Module):
    """Model or loss: each call changes buffers, a number and a list."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []
        self.register_buffer("added", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()), persistent=False)

    def forward(self, *args):
        self.added += 1
        self.replaced = self.replaced + 1
        self.seen.append(len(self.seen))
        return self.inner(*args)


class CountingStep:
    """What it counts is in its `state_dict`."""

    def __init__(self):
        self.calls, self.loss = 0, nn.CrossEntropyLoss(reduction="none")

    def __call__(self, model, batch):
        self.calls += 1
        outputs = model(batch[0])
        return StepOutput(self.loss(outputs, batch[1]), outputs)

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


@pytest.mark.parametrize("measure", [validate_epoch, score_samples])
def test_what_a_checkpoint_holds_is_after_measuring_as_before(measure):
    x, y = samples(20)
    model, loss, own = Counts(Net()), Counts(nn.CrossEntropyLoss(reduction="none")), CountingStep()
    more = {"metrics": metrics("accuracy")} if measure is validate_epoch else {}
    for step in (supervised_step(loss), supervised_step(lambda: loss), own):
        measure(model, batches(x, y, batch_size=8), step=step, **more)
        assert [(float(one.added), float(one.replaced)) for one in (model, loss)] == [(0, 0)] * 2
    assert own.calls == 0
    assert (len(model.seen), len(loss.seen)) == (9, 6)  # whoever collects has it
    model(x).sum().backward()  # nothing is left that training could not go on with


def test_a_model_that_draws_random_numbers_is_measured_alike_each_time():
    class Noisy(Net):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    state, (x, y) = new_state(Noisy), samples(20)
    first = validate(state, x, y).values
    torch.rand(3)
    assert validate(state, x, y).values == first


def test_targets_below_zero_count_nowhere_in_the_accuracy():
    state, (x, y) = new_state(), samples(20)
    expected = validate(state, x[:15], y[:15], batch_size=20).values["accuracy"]
    y[15:] = -100
    assert validate(state, x, y).values["accuracy"] == expected


@pytest.mark.parametrize("ignored", [0, 2, 255])
def test_targets_that_the_loss_ignores_count_in_no_metric_and_are_no_label(ignored):
    state, (x, y) = new_state(), samples(42)
    y = torch.where(torch.arange(42) % 3 == 0, ignored, y)
    names = (
        "accuracy", "top5_accuracy", "f1", "balanced_accuracy", "auroc", "perplexity",
        "confusion_matrix", "calibration_error",
    )  # fmt: skip
    step, keep = cross_entropy(ignore_index=ignored), y != ignored
    found = validate_epoch(
        state.model, batches(x, y, batch_size=7), step=step, metrics=metrics_of(*names)
    )
    expected = validate_epoch(
        state.model, batches(x[keep], y[keep], batch_size=7), step=step, metrics=metrics_of(*names)
    )
    for name, value in expected.values.items():
        assert found.values[name] == pytest.approx(value, nan_ok=True), name
    assert found.matrices == expected.matrices
    seen = score_samples(state.model, batches(x, y, batch_size=7), step=step)
    assert np.array_equal(seen["label"] == -1, ~keep.numpy())
    trained = run_epoch(state, x, y, step=step)
    assert np.array_equal(trained.observations["label"] == -1, ~keep.numpy())
    right = trained.observations["correct"][keep.numpy()].mean()
    assert trained.accuracy == pytest.approx(right)


def test_a_metric_of_torchmetrics_starts_anew_each_time():
    def make(target):
        return torchmetrics.classification.MulticlassF1Score(num_classes=4)

    measured = metrics(
        {"name": "f1", "target": "torchmetrics.classification:MulticlassF1Score"}, make=make
    )
    state, (x, y) = new_state(), samples(30)
    first = validate(state, x, y, measured=measured).values["f1"]
    assert 0 < first <= 1
    assert validate(state, x, y, measured=measured).values["f1"] == first


def test_a_metric_may_give_a_dict_of_numbers():
    class Both:
        def update(self, outputs, target):
            self.seen = len(target)

        def compute(self):
            return {"low": 1, "high": torch.tensor([2.5])}

    measured = metrics({"name": "both", "target": "m:x"}, make=lambda _: Both())
    found = validate(new_state(), *samples(5), measured=measured).values
    assert (found["both_low"], found["both_high"]) == (1.0, 2.5)


def test_a_metric_that_gives_no_number_is_an_error():
    class Matrix:
        def update(self, outputs, target):
            pass

        def compute(self):
            return torch.ones(2, 2)

    measured = metrics({"name": "m", "target": "m:x"}, make=lambda _: Matrix())
    with pytest.raises(TargetError, match=r"metrics.m: compute\(\) gave torch.float32 of shape"):
        validate(new_state(), *samples(5), measured=measured)


def test_what_is_no_metric_is_refused_at_once():
    with pytest.raises(TargetError, match="without update and compute"):
        metrics({"name": "m", "target": "m:x"}, make=lambda _: object())


def test_accuracy_of_what_is_no_classification_says_what_to_set():
    def step(model, batch):
        return StepOutput(model(batch[0]).mean(1), outputs=model(batch[0]), target=batch[0])

    with pytest.raises(TargetError, match=r"set metrics.validation to \[loss\]"):
        validate(new_state(), *samples(8), step=step)


def test_a_loss_per_batch_is_weighted_by_its_samples():
    def step(model, batch):
        out = cross_entropy()(model, batch)
        return StepOutput(out.loss_B.mean(), out.outputs)

    state, (x, y) = new_state(), samples(21)
    found = validate(state, x, y, step=step).values["loss"]
    assert found == pytest.approx(validate(state, x, y).values["loss"], rel=1e-6)


def test_no_batch_gives_nan():
    found = validate(new_state(), *samples(0))
    assert np.isnan(found.values["loss"])
    assert np.isnan(found.values["accuracy"])


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_in_the_mode_that_it_was_in(training):
    state = new_state()
    state.model.train(training)
    validate(state, *samples(16))
    assert state.model.training == training
