"""An evaluation that several processes share: the numbers of one."""

import pytest
import torch
from support.numbers.processes import in_group
from support.numbers.tiny_model import cross_entropy, new_state, samples

from epochal.data.errors import TargetError
from epochal.data.loading.loader import validation_batches
from epochal.engine.library import metrics_of
from epochal.engine.loop.evaluate import score_samples, validate_epoch
from epochal.engine.model.step import StepOutput
from epochal.engine.shards.group import Group
from epochal.engine.shards.rounds import put_together, taken_apart

COUNT = 50  # 7 batches of 8, the last of 2


class Order:
    """What an own metric without a merge sees: each batch, in order."""

    def __init__(self):
        self.seen = []

    def update(self, outputs, target):
        self.seen.append((tuple(outputs["logits"].shape), float(outputs["logits"].sum())))

    def compute(self):
        return {"last": self.seen[-1][1], "number": len(self.seen), "draw": float(torch.rand(()))}


def step(model, batch):
    _, y = batch
    output = cross_entropy()(model, batch)
    return StepOutput(
        output.loss_B,
        outputs={"logits": output.outputs, "more": [y, "text"]},
        target=(y,),
        parts={"ce": output.loss_B, "mean": output.loss_B.mean()},
    )


def measured(exchange, *, draws=False):
    x, y = samples(COUNT)
    state, group = new_state(), None
    rank, processes = 0, 1
    if exchange is not None:
        group, rank, processes = Group(exchange, 4), exchange.rank, exchange.size
    if draws:
        state.model.dropout.forward = torch.nn.functional.dropout
    data = torch.utils.data.TensorDataset(x, y)

    def batches():
        return validation_batches(
            data,
            batch_size=8,
            sample_ids_N=torch.arange(COUNT).numpy(),
            rank=rank,
            processes=processes,
        )

    result = validate_epoch(
        state.model, batches(), step=step, metrics=metrics_of(own=Order), group=group
    )
    scores = score_samples(state.model, batches(), step=cross_entropy(), group=group)
    return result.num_samples, result.values, {n: one.tobytes() for n, one in scores.items()}


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_any_number_of_processes_measures_the_same(size, tmp_path):
    first, *others = in_group(measured, size, tmp_path)
    assert first == measured(None)
    assert all(other[:2] == (0, {}) for other in others)


def drawn(exchange):
    with pytest.raises(TargetError, match="draws random numbers"):
        measured(exchange, draws=True)


def test_a_model_that_draws_is_refused(tmp_path):
    in_group(drawn, 2, tmp_path)


def test_nests_are_put_together_again():
    given = {"a": [torch.ones(2), (torch.zeros(1), None)], "b": "text", "c": 1.5}
    document, tensors = taken_apart(given, name="outputs")
    found = put_together(document, iter(tensors))
    assert str(found) == str(given)
    assert type(found["a"][1]) is tuple


def test_what_no_document_holds_is_named():
    with pytest.raises(TargetError, match="outputs hold a set"):
        taken_apart([{1, 2}], name="outputs")
