"""The average of the weights: its numbers, its place in checkpoints, validation and keys."""

import pytest
import torch
from safetensors.torch import load_file
from support.numbers.tiny_model import Net, bits, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from torch import nn

from epochal.data.errors import StateMismatch, TargetError
from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.config.numerics import EmaConfig
from epochal.engine.model.ema import WeightAverage


def state_with(seed=1, **options):
    state = new_state(seed=seed)
    state.ema = WeightAverage(state.model, EmaConfig(**options))
    return state


def copied(tensors):
    return {name: one.detach().clone() for name, one in tensors.items()}


@pytest.mark.parametrize("warm_up", [True, False])
def test_the_average_is_bitwise_that_of_a_loop_by_hand(warm_up):
    x, y = samples(61)
    state = state_with(decay=0.9, warm_up=warm_up)
    by_hand = copied(state.model.state_dict())
    seen = []
    ends = []

    def look(progress):
        if progress.updates > len(ends):
            ends.append(progress.updates)
            seen.append(copied(state.model.state_dict()))

    run_epoch(state, x, y, accumulate=3, on_progress=look)
    for number, weights in enumerate(seen, 1):
        decay = min(0.9, (1 + number) / (10 + number)) if warm_up else 0.9
        for name, average in by_hand.items():
            if average.is_floating_point():
                average.lerp_(weights[name], 1 - decay)
            else:
                average.copy_(weights[name])
    assert len(seen) == 3
    for name, average in by_hand.items():
        assert torch.equal(average, state.ema.tensors[name]), name


def test_the_average_changes_nothing_of_the_training():
    x, y = samples(61)
    plain, averaged = new_state(), state_with()
    run_epoch(plain, x, y)
    run_epoch(averaged, x, y)
    assert bits(plain) == bits(averaged)


def test_inside_the_block_the_model_is_the_average_and_after_it_its_own():
    state = state_with(decay=0.5, warm_up=False)
    run_epoch(state, *samples(40))
    before = copied(state.model.state_dict())

    def use():
        with state.ema.applied() as model:
            for name, tensor in model.state_dict().items():
                assert torch.equal(tensor, state.ema.tensors[name])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        use()
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert name == "body.1.num_batches_tracked" or not torch.equal(
            tensor, state.ema.tensors[name]
        )


def test_a_state_that_is_no_tensor_has_no_average():
    class Noted(Net):
        def get_extra_state(self):
            return {"note": "text"}

        def set_extra_state(self, state):
            pass

    with pytest.raises(TargetError, match="ema: _extra_state of the model's state_dict is a dict"):
        WeightAverage(new_state(Noted).model, EmaConfig())


def test_tied_weights_are_averaged_once():
    class Tied(Net):
        def __init__(self):
            super().__init__(norm=False)
            self.other = nn.Linear(8, 4)
            self.other.weight = self.head.weight

    state = new_state(Tied)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5, warm_up=False))
    start = state.ema.tensors["head.weight"].clone()
    with torch.no_grad():
        state.model.head.weight.add_(1)
    state.ema.update(1)
    assert state.ema.tensors["head.weight"] is state.ema.tensors["other.weight"]
    assert torch.allclose(state.ema.tensors["other.weight"], start + 0.5)


def test_a_state_with_an_average_comes_back_whole():
    x, y = samples(61)
    state = state_with(decay=0.8)
    run_epoch(state, x, y)
    parts = split_state(state)
    other = state_with(seed=9, decay=0.8)
    load_state(other, parts)
    assert all(torch.equal(one, other.ema.tensors[name]) for name, one in parts.ema.items())
    del parts.ema["head.weight"]
    with pytest.raises(StateMismatch, match=r"head\.weight: not stored"):
        load_state(other, parts)


EMA = {"ema": "{decay: 0.9}"}


def test_a_run_with_an_average_validates_it_beside_the_model(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})
    plain = BareRun(project.config, store=f"file://{tmp_path}/plain")()
    run = BareRun(project.config, store=f"file://{tmp_path}/store", **EMA)()
    assert run.weights == plain.weights
    records = {(one.stage, one.epoch): one for one in run.view.records.values()}
    values = records["validate", 1].values["metrics"]
    assert set(values) == {"accuracy", "loss", "ema/accuracy", "ema/loss"}
    before = {(one.stage, one.epoch): one for one in plain.view.records.values()}
    assert values["accuracy"] == before["validate", 1].values["metrics"]["accuracy"]
    assert values["ema/loss"] != values["loss"]
    assert set(records["train", 0].artifacts) >= {"model", "ema", "optimizer"}
    # A validation that must load the checkpoint gives the same as one that has it at hand.
    folder = tmp_path / "store" / "stages" / records["validate", 1].key
    (folder / "record.json").unlink()
    again = BareRun(project.config, store=f"file://{tmp_path}/store", **EMA)()
    redone = {(one.stage, one.epoch): one for one in again.view.records.values()}
    assert redone["validate", 1].values == records["validate", 1].values


def test_the_model_takes_the_average_before_the_epoch_that_says_so(tmp_path, home):
    project = Project(tmp_path / "project", epochs=3, sampling={"policy": "none"})
    store = f"file://{tmp_path}/store"
    plain = BareRun(project.config, store=store, ema="{decay: 0.9}")()
    copying = BareRun(project.config, store=store, ema="{decay: 0.9, copy_at_epoch: 2}")()
    cached = {(one.stage.kind, one.stage.epoch): one.cached for one in copying.outcomes}
    assert cached["train", 1]
    assert not cached["train", 2]
    assert copying.weights != plain.weights


def test_each_weight_comes_out_and_each_has_its_own_best(tmp_path, tracker, prefect_api):
    project = Project(tmp_path / "project", epochs=3, metrics={"best": "ema/loss"}, ema={})
    done = project("train")
    assert done.code == 0, done.err
    metrics = done.json["metrics"]
    assert {"validation/ema/accuracy", "best/ema/loss", "best/ema/epoch"} <= set(metrics)
    for option in ((), ("--ema",)):
        out = tmp_path / f"weights{len(option)}.safetensors"
        assert call("export", str(project.config), "--out", str(out), *option).code == 0
        assert set(load_file(out)) >= {"head.weight", "body.1.running_mean"}
    plain, averaged = (load_file(tmp_path / f"weights{one}.safetensors") for one in (0, 1))
    assert not torch.equal(plain["head.weight"], averaged["head.weight"])


def test_the_best_of_an_average_that_is_not_kept_is_refused(tmp_path, home):
    project = Project(tmp_path / "project", metrics={"best": "ema/loss"})
    done = project("plan")
    assert done.code == 2
    assert "metrics.best: 'ema/loss' is of the average of the weights; give `ema`" in done.err


def test_a_run_without_an_average_says_so_at_its_export(tmp_path, tracker, prefect_api):
    project = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    assert project("train").code == 0
    done = call("export", str(project.config), "--out", str(tmp_path / "x"), "--ema")
    assert done.code == 2
    assert "no average of the weights was kept" in done.err
