"""What the loop calls out, in which order, and that nobody's listening changes a number."""

from itertools import groupby

import pytest
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, samples

from epochal.data.errors import TargetError
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.step import StepOutput


def run(told, *, accumulate=2, step=None, source=None):
    state = new_state()
    source = source or batches(*samples(40), batch_size=8, accumulate=accumulate)
    recipe = Recipe(step or cross_entropy())
    train_epoch(state, source, recipe, epoch=0, num_updates=3, on_phase=told)
    return state


def test_each_micro_step_is_data_then_forward_and_each_update_ends_with_the_optimizer():
    told = []
    run(told.append)
    step, update = ["data", "forward_backward"], ["optimizer"]
    assert told == [
        *(step + step + update) * 2, *step, *update, "data", "forward_backward",
    ]  # fmt: skip
    assert all(len(list(same)) == 1 for _, same in groupby(told))


def test_batches_are_asked_for_while_the_phase_is_data():
    told = []

    def source():
        for batch in batches(*samples(40), batch_size=8, accumulate=2):
            assert told[-1] == "data"
            yield batch
            assert told[-1] == "data"

    run(told.append, source=source())


def test_a_step_that_raises_leaves_the_phase_as_it_was():
    told = []
    with pytest.raises(TargetError):
        run(told.append, step=lambda model, data: StepOutput(model(data[0]).detach().sum()))
    assert told == ["data", "forward_backward"]


def test_who_listens_changes_no_bit():
    assert bits(run([].append)) == bits(run(lambda _: None))
