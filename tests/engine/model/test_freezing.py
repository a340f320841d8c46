"""Frozen parameters and the modules that rest with them stay as they are, until they train."""

import pytest
import torch
from pydantic import ValidationError
from support.numbers.stage_keys import changed, keys
from support.numbers.tiny_model import (
    Net,
    bits,
    cross_entropy,
    new_state,
    num_updates,
    run_epoch,
    samples,
)
from support.numbers.tiny_model import batches as batches_of
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from torch import nn

from epochal.data.errors import TargetError, TrainingFailed
from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.config.numerics import EmaConfig, GradientsConfig
from epochal.engine.config.optimizer import OptimizerConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.build import build_model
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.freezing import check_frozen, freeze, set_training_mode

BODY = ("body.*",)


def copied(model):
    return {name: one.detach().clone() for name, one in model.state_dict().items()}


def test_what_is_frozen_stays_with_its_statistics_and_its_average():
    state = new_state(weight_decay=0.5)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.9))
    before = copied(state.model)
    result = run_epoch(state, *samples(64), accumulate=2, frozen=BODY)
    for name, tensor in state.model.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same == name.startswith("body"), name
        assert torch.equal(state.ema.tensors[name], before[name]) == same, name
    assert not result.updates["gradients/norm/body"].any()
    assert result.updates["gradients/norm/head"].all()
    assert {name.partition(".")[0] for name in split_state(state).document["slots"]} == {"head"}


def test_a_gradient_that_is_left_of_before_moves_no_frozen_parameter():
    state = new_state(weight_decay=0.5)
    state.model.head.weight.grad = torch.ones_like(state.model.head.weight)
    before = state.model.head.weight.detach().clone()
    run_epoch(state, *samples(32), frozen=("head.*",))
    assert torch.equal(state.model.head.weight, before)


def test_an_epoch_after_it_trains_everything():
    state = new_state()
    run_epoch(state, *samples(32), frozen=BODY)
    before = copied(state.model)
    run_epoch(state, *samples(32), epoch=1)
    assert not any(torch.equal(one, before[name]) for name, one in state.model.state_dict().items())
    assert all(one.requires_grad for one in state.model.parameters())


@pytest.mark.parametrize("zeroing", ["none", "zero"])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_freezing_and_thawing_is_bitwise_a_loop_by_hand(optimizer, zeroing):
    x, y = samples(44)
    more = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    options = {"lr": 0.05, "weight_decay": 0.1, **more}

    def make():
        return Net(dropout=0.0)

    state = new_state(make, optimizer, **options)
    model = build_model(make, seed=1)
    by_hand = optimizer(model.parameters(), **options)
    recipe = Recipe(
        cross_entropy(),
        gradients=GradientsConfig(accumulate=2, clip_norm=0.5, zeroing=zeroing),
        frozen=lambda epoch: BODY if epoch < 2 else (),
        seed=5,
    )
    for epoch in range(3):
        frozen = epoch < 2
        train_epoch(
            state,
            batches_of(x, y, batch_size=8, accumulate=2),
            recipe,
            epoch=epoch,
            num_updates=num_updates(44, batch_size=8, accumulate=2),
        )
        model.train()
        model.body.requires_grad_(not frozen)
        if frozen:
            model.body.eval()
        for low in range(0, 44, 16):
            by_hand.zero_grad()
            size = min(16, 44 - low)
            for start in range(low, low + size, 8):
                part = slice(start, min(start + 8, 44))
                loss = nn.functional.cross_entropy(model(x[part]), y[part], reduction="sum") / size
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            by_hand.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name


def test_modules_rest_where_all_of_their_parameters_are_frozen():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(
                nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2, affine=False)
            )
            self.norm = nn.BatchNorm1d(2)
            self.dropout = nn.Dropout()
            self.head = nn.Linear(2, 2)

    state = new_state(Deep)
    patterns = ("stem.*", "norm.weight")
    freeze(state, patterns)
    set_training_mode(state, patterns)
    resting = {name for name, one in state.model.named_modules() if not one.training}
    assert resting == {"stem", "stem.0", "stem.1", "stem.2"}


def test_what_a_user_has_frozen_is_as_the_user_has_it():
    def make():
        model = Net()
        model.body.requires_grad_(False)
        return model

    state = new_state(make)
    with pytest.raises(
        TargetError, match="'body.*' matches no parameter that trains; .* head.weight"
    ):
        check_frozen(state, BODY)
    run_epoch(state, *samples(32))
    assert state.model.body[1].num_batches_tracked == 4
    assert not state.model.body[0].weight.requires_grad


def test_an_epoch_that_fails_leaves_nothing_behind():
    x, y = samples(32)
    broken, whole = new_state(), new_state()
    before = split_state(broken)
    saved = type(before)(copied(broken.model), dict(before.optimizer), before.document)

    def fail(progress):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run_epoch(broken, x, y, frozen=BODY, on_progress=fail)
    load_state(broken, saved)
    run_epoch(broken, x, y)
    run_epoch(whole, x, y)
    assert bits(broken) == bits(whole)


def test_an_epoch_goes_on_in_the_middle_with_what_was_frozen():
    x, y = samples(61)
    whole, first, second = new_state(), new_state(), new_state(seed=9)
    expected = run_epoch(whole, x, y, accumulate=2, frozen=BODY)
    kept = []

    def keep(progress):
        if progress.micro_steps == 3:  # inside an update
            partial = progress.capture()
            assert set(partial.gradients) == {"head.weight", "head.bias"}
            gradients = {name: one.clone() for name, one in partial.gradients.items()}
            parts = split_state(progress.state)
            tensors = {name: one.clone() for name, one in parts.optimizer.items()}
            kept.append((type(parts)(copied(first.model), tensors, parts.document),
                         type(partial)(**{**vars(partial), "gradients": gradients})))  # fmt: skip

    run_epoch(first, x, y, accumulate=2, frozen=BODY, on_progress=keep)
    parts, partial = kept[0]
    load_state(second, parts)
    found = run_epoch(second, x, y, accumulate=2, frozen=BODY, start=3, resume=partial)
    assert bits(second) == bits(whole)
    assert all((found.updates[name] == expected.updates[name]).all() for name in expected.updates)


@pytest.mark.parametrize(("patterns", "words"), [
    (["haed.*"], "optimizer.frozen: 'haed.*' matches no parameter that trains"),
    (["body.*", "head.*"], "leave nothing to train in epoch 0"),
])  # fmt: skip
def test_freezing_nothing_or_everything_is_refused(patterns, words):
    with pytest.raises(TargetError) as error:
        check_frozen(new_state(), patterns)
    assert words in str(error.value)


@pytest.mark.parametrize("entry", [{}, {"match": ""}, {"match": "x", "until": 0}, {"until": 2}])
def test_what_freezes_nothing_is_refused(entry):
    with pytest.raises(ValidationError):
        OptimizerConfig(target="torch.optim:SGD", args={"lr": 1}, frozen=[entry])


def epochs_of(places):
    return sorted(epoch for kind, epoch in places if kind == "train")


def test_only_what_is_frozen_in_an_epoch_is_in_its_key():
    assert changed(optimizer__frozen=[]) == set()
    assert epochs_of(changed(optimizer__frozen=[{"match": "a", "until": 3}])) == list(range(8))

    def frozen(*entries):
        return keys(optimizer__frozen=[{"match": name, "until": until} for name, until in entries])

    one, other = frozen(("a", 3)), frozen(("a", 5))
    assert epochs_of(place for place in one if one[place] != other[place]) == [3, 4, 5, 6, 7]
    assert frozen(("a", 3), ("b", 3)) == frozen(("b", 3), ("a", 3), ("a", 2))
    assert frozen(("a", None)) == frozen(("a", 8))


def test_a_run_that_thaws_resumes_to_the_same_bytes(tmp_path, home):
    optimizer = {
        "target": "torch.optim:AdamW", "args": {"lr": 0.01},
        "frozen": [{"match": "body.*", "until": 1}],
    }  # fmt: skip
    project = Project(tmp_path / "project", epochs=2, optimizer=optimizer)
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole")()
    often = {"checkpoint__every_updates": 1}
    for call in ("8", "17"):  # the second counts from the process's own model
        with environment(FAIL_AT_CALL=call), pytest.raises(TrainingFailed):
            BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.digests == whole.digests
    assert again.resumed
    longer = BareRun(project.config, epochs=3, sampling="{policy: none}")
    frozen = longer.view.stage("train", 0).inputs["optimizer.frozen"]
    assert frozen == ["body.*"]
    assert "optimizer.frozen" not in longer.view.stage("train", 1).inputs


def test_a_scaled_loss_skips_what_is_frozen_too():
    from epochal.engine.config.numerics import PrecisionConfig
    from epochal.engine.model.precision import new_scaler

    precision = PrecisionConfig(dtype="float16")
    state = new_state()
    state.scaler = new_scaler(precision, state.device)
    before = copied(state.model)
    result = run_epoch(state, *samples(32), frozen=BODY, precision=precision)
    assert state.updates_done + state.updates_skipped == result.num_updates == 4
    assert torch.equal(state.model.body[0].weight, before["body.0.weight"])
    assert not torch.equal(state.model.head.weight, before["head.weight"])
