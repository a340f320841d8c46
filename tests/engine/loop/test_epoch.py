"""The epoch loop: the numbers of a loop by hand, whatever the batches, and exact resumes."""

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.tiny_model import (
    Net,
    batches,
    bits,
    cross_entropy,
    new_state,
    num_updates,
    run_epoch,
    samples,
)
from torch import nn

from epochal.data.errors import NonFinite, TargetError, TrainingFailed
from epochal.data.types import seed_64
from epochal.engine.loop.epoch import Recipe, train_epoch, updates_table
from epochal.engine.model.step import StepOutput

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "nadam": (torch.optim.NAdam, {}),
    "adafactor": (torch.optim.Adafactor, {}),
}


def by_hand(state, x, y, *, batch_size, accumulate, epoch, clip_norm=None, clip_value=None):
    """What a person would write; gives the norms before the clip."""
    model, optimizer, norms = state.model, state.optimizer, []
    model.train()
    parts = list(range(0, len(y), batch_size))
    for index, low in enumerate(parts):
        torch.manual_seed(seed_64(5, "step", epoch, index))
        window = parts[index // accumulate * accumulate :][:accumulate]
        size = min(window[-1] + batch_size, len(y)) - window[0]
        logits = model(x[low : low + batch_size])
        loss = nn.functional.cross_entropy(logits, y[low : low + batch_size], reduction="sum")
        (loss / size).backward()
        if low != window[-1]:
            continue
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
        if clip_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), clip_value)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return norms


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 0.3}, {"clip_value": 0.02, "clip_norm": 0.1}])
def test_weights_are_bitwise_those_of_a_loop_by_hand(optimizer, accumulate, clip):
    kind, options = OPTIMIZERS[optimizer]
    ours, theirs = (new_state(optimizer=kind, **options) for _ in range(2))
    x, y = samples(61)
    norms = []
    for epoch in range(3):
        result = run_epoch(ours, x, y, accumulate=accumulate, epoch=epoch, **clip)
        with torch.random.fork_rng():
            norms = by_hand(theirs, x, y, batch_size=8, accumulate=accumulate, epoch=epoch, **clip)
        assert np.array_equal(result.updates["gradients/norm"], [float(one) for one in norms])
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, theirs.model.state_dict()[name]), name


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 5), st.booleans())
def test_accumulated_micro_batches_are_one_large_batch(count, batch_size, accumulate, weighted):
    make = lambda: Net(dropout=0.0, norm=False)  # noqa: E731
    x, y = samples(count)
    weights = torch.linspace(0.5, 2, count) if weighted else None
    small, large = (new_state(make, torch.optim.SGD) for _ in range(2))
    run_epoch(small, x, y, batch_size=batch_size, accumulate=accumulate, weights=weights)
    run_epoch(large, x, y, batch_size=batch_size * accumulate, weights=weights)
    assert small.updates_done == large.updates_done == -(-count // (batch_size * accumulate))
    for one, other in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_epoch_goes_on_from_any_micro_step_to_the_same_bits(accumulate):
    x, y = samples(53)
    whole = new_state()
    run_epoch(whole, x, y, epoch=0, accumulate=accumulate)  # BatchNorm and moments have moved
    before = copy.deepcopy(whole)
    kept = []

    def keep(progress):
        kept.append((copy.deepcopy(progress.state), copy.deepcopy(progress.capture())))

    expected = run_epoch(whole, x, y, epoch=1, accumulate=accumulate)
    run_epoch(before, x, y, epoch=1, accumulate=accumulate, on_progress=keep)
    assert len(kept) == -(-53 // 8)
    for state, partial in kept:
        torch.manual_seed(random.randrange(1 << 30))  # whatever the process drew in between
        found = run_epoch(
            state, x, y, epoch=1, accumulate=accumulate, resume=partial, start=partial.micro_steps
        )
        assert bits(state) == bits(whole)
        for name, column in expected.observations.items():
            assert column.tobytes() == found.observations[name].tobytes(), name
        for name, column in expected.updates.items():
            assert column.tobytes() == found.updates[name].tobytes(), name
        assert found.mean_loss == expected.mean_loss
        assert found.first_update == expected.first_update


def test_observations_do_not_depend_on_how_many_rows_wait(monkeypatch):
    x, y = samples(200)
    expected = run_epoch(new_state(), x, y, batch_size=7).observations
    for waiting in (1, 40, 300):
        monkeypatch.setattr("epochal.engine.measure.observe.MAX_WAITING", waiting)
        found = run_epoch(new_state(), x, y, batch_size=7).observations
        for name, column in expected.items():
            assert column.tobytes() == found[name].tobytes(), (name, waiting)


def test_observations_say_what_the_model_thought_of_each_sample():
    x, y = samples(20)
    y[3] = -100
    model = Net(dropout=0.0, norm=False)
    state = new_state(lambda: model, torch.optim.SGD, lr=1e-30)
    found = run_epoch(state, x, y).observations
    logits = model(x).detach()
    p = logits.softmax(1)
    known = y >= 0
    label = y.clamp(min=0)
    assert found["sample_id"].tolist() == [10 * row for row in range(20)]
    assert np.array_equal(found["label"], torch.where(known, y, -1))
    assert np.allclose(found["confidence"], p.max(1).values, atol=1e-6)
    assert np.array_equal(found["correct"], (p.argmax(1) == y).numpy())
    true = p.gather(1, label[:, None])[:, 0]
    assert np.allclose(found["p_true"][known], true[known], atol=1e-6)
    others = logits.scatter(1, label[:, None], -torch.inf).max(1).values
    margin = logits.gather(1, label[:, None])[:, 0] - others
    assert np.allclose(found["margin"][known], margin[known], atol=1e-5)
    el2n = (p - nn.functional.one_hot(label, 4)).norm(dim=1)
    assert np.allclose(found["el2n"][known], el2n[known], atol=1e-5)
    losses = nn.functional.cross_entropy(logits, y, reduction="none")
    assert np.allclose(found["loss"], losses, atol=1e-5)
    for name in ("p_true", "margin", "el2n"):
        assert np.isnan(found[name][3])


def test_a_regression_is_observed_by_its_loss_alone():
    def step(model, batch):
        return StepOutput((model(batch[0]).mean(1) - batch[1]) ** 2)

    x, y = samples(20)
    found = run_epoch(new_state(), x, y, step=step)
    assert np.isfinite(found.observations["loss"]).all()
    assert np.isnan(found.observations["confidence"]).all()
    assert found.accuracy is None


def test_a_loss_per_batch_trains_and_is_averaged_by_samples():
    def step(model, batch):
        return StepOutput(nn.functional.cross_entropy(model(batch[0]), batch[1]))

    x, y = samples(27)
    ours, reference = new_state(), new_state()
    found = run_epoch(ours, x, y, step=step, accumulate=2)
    expected = run_epoch(reference, x, y, accumulate=2)
    assert found.mean_loss == pytest.approx(expected.mean_loss, rel=1e-5)
    for one, other in zip(ours.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_norms_are_kept_for_every_update_and_group():
    x, y = samples(40)
    result = run_epoch(new_state(), x, y, clip_norm=0.2)
    updates = result.updates
    assert set(updates) == {
        "train/loss", "train/learning_rate", "gradients/norm", "gradients/norm_clipped",
        "gradients/norm/body", "gradients/norm/head",
    }  # fmt: skip
    both = np.hypot(updates["gradients/norm/body"], updates["gradients/norm/head"])
    assert np.allclose(both, updates["gradients/norm"], rtol=1e-6)
    assert updates["gradients/norm_clipped"].max() <= 0.2 + 1e-6
    assert updates["gradients/norm"].max() > 0.2
    table = updates_table(result)
    assert len(table["step"]) == len(updates) * 5
    assert set(table["step"]) == {1, 2, 3, 4, 5}


def test_the_rate_is_that_of_the_middle_of_each_update():
    x, y = samples(40)
    state = new_state()
    result = run_epoch(state, x, y, epoch=3, rate=lambda t: t)
    assert np.allclose(result.updates["train/learning_rate"], 0.05 * (3 + (np.arange(5) + 0.5) / 5))
    assert [group["lr"] for group in state.optimizer.param_groups] == [0.05]


def test_the_steps_count_over_the_whole_run():
    x, y = samples(40)
    state = new_state()
    run_epoch(state, x, y)
    second = run_epoch(state, x, y, epoch=1)
    assert (second.first_update, state.updates_done) == (6, 10)
    assert updates_table(second)["step"].min() == 6


def test_the_global_generators_are_as_they_were():
    x, y = samples(20)
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    run_epoch(new_state(), x, y)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_randomness_of_numpy_and_random_in_a_model_is_reproduced():
    def step(model, batch):
        noise = float(np.random.rand()) + random.random()
        return StepOutput(
            nn.functional.cross_entropy(model(batch[0]) * noise, batch[1], reduction="none")
        )

    x, y = samples(20)
    one, other = new_state(), new_state()
    run_epoch(one, x, y, step=step)
    np.random.rand(7)
    random.random()
    run_epoch(other, x, y, step=step)
    assert bits(one) == bits(other)


def test_a_non_finite_loss_names_epoch_update_and_samples():
    x, y = samples(40)
    x[17] = torch.inf
    with pytest.raises(NonFinite) as raised:
        run_epoch(new_state(lambda: Net(norm=False)), x, y, epoch=2)
    text = str(raised.value)
    assert "epoch 2, update 3 of 5" in text
    assert "samples of a non-finite loss: 170" in text


def test_a_non_finite_gradient_of_a_finite_loss_is_found_too():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6))

        def forward(self, x):
            value = (x * self.weight).abs().sum(1).sqrt()  # the slope at zero is infinite
            return torch.stack([value, -value], dim=1)

    x, y = samples(16)
    with pytest.raises(NonFinite, match="update 1 of 2: loss 0.69.*its samples: 0, 10"):
        run_epoch(new_state(Root), x, y % 2)


def test_an_unused_parameter_has_norm_zero_and_no_update():
    class Half(Net):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 3)

    x, y = samples(16)
    state = new_state(Half)
    before = state.model.spare.weight.clone()
    result = run_epoch(state, x, y, clip_norm=0.1)
    assert result.updates["gradients/norm/spare"].tolist() == [0, 0]
    assert torch.equal(state.model.spare.weight, before)


def test_sparse_gradients_are_measured_and_clipped():
    class Words(nn.Module):
        def __init__(self, sparse):
            super().__init__()
            self.words = nn.Embedding(10, 4, sparse=sparse)

        def forward(self, x):
            return self.words(x).sum(1)

    x, y = torch.randint(10, (16, 3), generator=torch.Generator().manual_seed(0)), samples(16)[1]
    results = []
    for sparse in (True, False):
        state = new_state(lambda sparse=sparse: Words(sparse), torch.optim.SGD)
        results.append((run_epoch(state, x, y, clip_norm=0.1), state.model.words.weight.detach()))
    (one, left), (other, right) = results
    assert np.allclose(one.updates["gradients/norm"], other.updates["gradients/norm"])
    torch.testing.assert_close(left, right)


def test_a_detached_loss_is_an_error_of_the_step():
    def step(model, batch):
        return StepOutput(model(batch[0]).sum(1).detach())

    with pytest.raises(TargetError, match="does not depend on the model's parameters"):
        run_epoch(new_state(), *samples(8), step=step)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.ones(3), "returned a Tensor, expected"),
        (StepOutput(torch.ones(8, 2)), r"shape \(8, 2\), expected \(8,\)"),
    ],
)
def test_what_a_step_may_not_give_is_named(output, words):
    with pytest.raises(TargetError, match=words):
        run_epoch(new_state(), *samples(8), step=lambda *_: output)


def test_an_unknown_observation_names_the_known_ones():
    def step(model, batch):
        losses = nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return StepOutput(losses, observations={"surprise": losses})

    with pytest.raises(TargetError, match="surprise are not known; expected some of confidence"):
        run_epoch(new_state(), *samples(8), step=step)


def test_a_loader_that_gives_too_few_batches_is_an_error():
    x, y = samples(40)
    with pytest.raises(TrainingFailed, match="led to 2 updates, expected 5"):
        train_epoch(
            new_state(),
            batches(x, y, batch_size=8)[:2],
            Recipe(cross_entropy()),
            epoch=0,
            num_updates=num_updates(40, batch_size=8),
        )
