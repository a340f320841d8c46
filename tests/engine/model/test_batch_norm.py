"""BatchNorm's momentum: a pure function of the fractional epoch, given back when the epoch ends."""

import math

import pytest
import torch
from pydantic import ValidationError
from support.numbers.stage_keys import changed, keys
from support.numbers.tiny_model import Net, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from torch import nn

from epochal.data.errors import TargetError, TrainingFailed
from epochal.engine.config.batch_norm import BatchNormConfig
from epochal.engine.model.batch_norm import annealed, check_batch_norm
from epochal.engine.model.build import build_model


def momentum(t, own=0.1, *, epochs=4, **fields):
    return BatchNormConfig(**{"final_momentum": 0.001, **fields}).function(epochs)(t, own)


def test_momentum_goes_from_the_layers_own_to_the_final_one():
    assert momentum(0) == 0.1
    assert momentum(4) == 0.001
    assert momentum(1) == pytest.approx(0.001 + 0.099 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert momentum(1, shape="linear") == pytest.approx(0.1 - 0.099 / 4)
    assert momentum(2, own=0.03, shape="linear") == pytest.approx((0.03 + 0.001) / 2)
    fields = {"start": 1, "end": 3, "shape": "linear"}
    assert [momentum(t, **fields) for t in (0.5, 1, 3, 3.7)] == [0.1, 0.1, 0.001, 0.001]
    assert momentum(2, **fields) == pytest.approx(0.0505)


def test_an_epoch_is_bitwise_that_of_a_loop_that_sets_the_momentum():
    x, y = samples(40)

    def make():
        return Net(dropout=0.0)

    state, model = new_state(make, lr=0.1), build_model(make, seed=1)
    given = BatchNormConfig(final_momentum=0.01).function(3)
    run_epoch(state, x, y, epoch=1, accumulate=2, momentum=given)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.train()
    updates = [(0, 16), (16, 32), (32, 40)]
    for number, (low, high) in enumerate(updates):
        model.body[1].momentum = given(1 + (number + 0.5) / 3, 0.1)
        optimizer.zero_grad()
        for start in range(low, high, 8):
            part = slice(start, start + 8)
            loss = nn.functional.cross_entropy(model(x[part]), y[part], reduction="sum")
            (loss / (high - low)).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name
    assert state.model.body[1].momentum == 0.1


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.BatchNorm1d(2, momentum=0.3)
        self.average = nn.BatchNorm2d(2, momentum=None)
        self.plain = nn.BatchNorm1d(2, track_running_stats=False)
        self.instance = nn.InstanceNorm1d(2)


def test_layers_have_their_own_again_even_where_the_epoch_fails():
    model = Norms()
    seen = []

    def use():
        with annealed(model, lambda t, own: own * t) as anneal:
            anneal(0.5)
            seen.extend(one.momentum for one in model.children())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use()
    assert seen == [0.15, None, 0.1, 0.1]
    assert [one.momentum for one in model.children()] == [0.3, None, 0.1, 0.1]
    check_batch_norm(model)
    with pytest.raises(TargetError, match="Linear has no BatchNorm layer"):
        check_batch_norm(nn.Linear(2, 2))


@pytest.mark.parametrize("fields", [
    {}, {"final_momentum": 2}, {"final_momentum": 0.1, "shape": "step"},
    {"final_momentum": 0.1, "end": 0},
])  # fmt: skip
def test_what_is_no_momentum_is_refused(fields):
    with pytest.raises(ValidationError):
        BatchNormConfig(**fields)


@pytest.mark.parametrize(("fields", "words"), [
    ({"batch_norm": {"final_momentum": 0.1, "start": 8}}, "batch_norm: start: 8 is not before"),
    ({"batch_norm": {"final_momentum": 0.1, "start": 3, "end": 2}}, "start: 3 is not before"),
    ({"batch_norm": {"final_momentum": 0.1}, "precision": {"compile": True}}, "precision.compile"),
])  # fmt: skip
def test_a_change_that_cannot_be_is_refused(fields, words):
    with pytest.raises(ValidationError) as error:
        keys(**fields)
    assert words in str(error.value)


def differing(one, other):
    return sorted(epoch for kind, epoch in one if kind == "train"
                  and one[kind, epoch] != other[kind, epoch])  # fmt: skip


def test_only_what_acts_in_an_epoch_is_in_its_key():
    assert changed(batch_norm=None) == set()
    plain = keys()
    late = keys(batch_norm={"final_momentum": 0.1, "start": 5})
    assert differing(plain, late) == [5, 6, 7]
    sampling = {"policy": "none"}
    fixed = {"final_momentum": 0.1, "end": 4}
    short = keys(batch_norm=fixed, sampling=sampling)
    assert differing(short, keys(batch_norm=fixed, sampling=sampling, epochs=12)) == []
    moving = {"final_momentum": 0.1}
    long = keys(batch_norm=moving, sampling=sampling, epochs=12)
    assert differing(keys(batch_norm=moving, sampling=sampling), long) == list(range(8))


def test_a_run_resumes_to_the_same_bytes(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2, batch_norm={"final_momentum": 0.001})
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole")()
    often = {"checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL="9"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.digests == whole.digests
    assert again.resumed
    plain = BareRun(project.config, batch_norm="null", store=f"file://{tmp_path}/plain")()
    assert plain.weights != again.weights
