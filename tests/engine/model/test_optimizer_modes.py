"""Optimizers with a mode for training and one for evaluation: Schedule-Free ones, and others."""

import pytest
import schedulefree
import torch
from support.numbers.tiny_model import Net, bits, cross_entropy, new_state, run_epoch, samples
from torch import nn

from epochal.data.types import seed_64
from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.model.optimizer_modes import evaluation_weights, has_modes
from epochal.engine.model.state import fresh_optimizer

KINDS = {
    "sgd": (schedulefree.SGDScheduleFree, {"lr": 0.5, "warmup_steps": 3}),
    "adamw": (schedulefree.AdamWScheduleFree, {"lr": 0.02, "weight_decay": 0.1}),
    "radam": (schedulefree.RAdamScheduleFree, {"lr": 0.02}),
}
EPOCHS = 3


def state_of(kind):
    optimizer, options = KINDS[kind]
    return new_state(optimizer=optimizer, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_ends_with_the_weights_of_a_loop_as_its_authors_write_it(kind):
    x, y = samples(61)
    ours, theirs = state_of(kind), state_of(kind)
    with torch.random.fork_rng():
        for epoch in range(EPOCHS):
            run_epoch(ours, x, y, epoch=epoch)
            theirs.model.train()
            theirs.optimizer.train()
            for index, low in enumerate(range(0, len(y), 8)):
                torch.manual_seed(seed_64(5, "step", epoch, index))
                logits = theirs.model(x[low : low + 8])
                nn.functional.cross_entropy(logits, y[low : low + 8]).backward()
                theirs.optimizer.step()
                theirs.optimizer.zero_grad()
            theirs.model.eval()
            theirs.optimizer.eval()
    assert bits(ours)[0] == bits(theirs)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_from_checkpoints_have_the_bits_of_an_unbroken_run(kind):
    x, y = samples(61)
    unbroken, parts = state_of(kind), None
    for epoch in range(EPOCHS):
        run_epoch(unbroken, x, y, epoch=epoch)
        again = state_of(kind)
        if parts is not None:
            load_state(again, parts)
        run_epoch(again, x, y, epoch=epoch)
        assert bits(again) == bits(unbroken)
        parts = split_state(again)


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_between_two_updates_sees_the_averaged_weights_and_changes_none(kind):
    x, y = samples(61)
    state, seen = state_of(kind), []

    def look(progress):
        before = bits(state)
        with evaluation_weights(state):
            inside = bits(state)[0]
        assert bits(state) == before
        if progress.updates:
            seen.append(inside != before[0])

    plain = state_of(kind)
    run_epoch(plain, x, y)
    run_epoch(state, x, y, on_progress=look)
    assert bits(state) == bits(plain)
    assert any(seen)


@pytest.mark.parametrize("kind", [*KINDS, "prodigy-like"])
def test_a_fresh_optimizer_counts_from_the_start_again(kind):
    class Counting(torch.optim.SGD):
        """Counts in its groups, as Prodigy and D-Adaptation do."""

        def step(self, closure=None):
            self.param_groups[0]["k"] = self.param_groups[0].get("k", 0) + 1
            return super().step(closure)

    x, y = samples(30)
    made = state_of(kind) if kind in KINDS else new_state(optimizer=Counting)
    first = split_state(made)
    weights = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    run_epoch(made, x, y)
    made.model.load_state_dict(weights)
    fresh_optimizer(made)
    assert split_state(made).document == first.document


def test_torchs_own_optimizers_have_no_modes():
    state = new_state()
    assert not has_modes(state.optimizer)
    with evaluation_weights(state):
        pass
    run_epoch(state, *samples(16), step=cross_entropy())
    assert isinstance(state.model, Net)
