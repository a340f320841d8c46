"""The loss around a checkpoint: directions, grid, picture, command."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from support.numbers.tiny_model import Net, batches, cross_entropy, new_state, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from torch import nn

from epochal.data.errors import TargetError
from epochal.engine import metrics_of
from epochal.engine.config.numerics import MetricsConfig
from epochal.engine.landscape import axis_of, direction, loss_landscape
from epochal.engine.loop.evaluate import validate_epoch
from epochal.engine.measure.metrics import build_metrics


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)


def parameters_of(model):
    return {name: one.data for name, one in model.named_parameters()}


def around(state, *, points=3, extent=1.0, **more):
    x, y = samples(30)
    measure = partial(
        validate_epoch,
        state.model,
        batches(x, y, batch_size=8),
        step=more.pop("step", cross_entropy()),
        metrics=metrics_of("loss"),
        seed=7,
    )
    return loss_landscape(
        state.model,
        measure,
        seed=more.pop("seed", 1),
        axis_P=axis_of(points, extent),
        **more,
    )


def test_each_filter_of_a_direction_has_the_norm_of_the_models_filter():
    torch.manual_seed(0)
    own = parameters_of(Convolutions())
    found = direction(own, seed=4, number=0)
    for name in ("conv.weight", "head.weight"):
        norms, wanted = (one[name].flatten(1).norm(dim=1) for one in (found, own))
        assert torch.allclose(norms, wanted, rtol=1e-6), name
        assert found[name].dtype == own[name].dtype
    for name in ("conv.bias", "norm.weight", "norm.bias", "head.bias"):
        assert not found[name].any(), name


def test_a_direction_is_a_function_of_seed_number_and_name():
    own = parameters_of(Convolutions())
    one = direction(own, seed=4, number=0)
    alone = direction({"head.weight": own["head.weight"]}, seed=4, number=0)
    assert torch.equal(one["head.weight"], alone["head.weight"])
    for other in (direction(own, seed=5, number=0), direction(own, seed=4, number=1)):
        assert not torch.equal(one["head.weight"], other["head.weight"])


def test_a_filter_of_zeros_stays_where_it_is():
    found = direction({"w": torch.zeros(3, 4)}, seed=0, number=0)
    assert torch.equal(found["w"], torch.zeros(3, 4))


@pytest.mark.parametrize("points", [2, 4, 1])
def test_an_axis_has_the_checkpoint_in_its_middle(points):
    assert axis_of(5, 0.7)[2] == 0.0
    assert axis_of(5, 0.7).tolist() == [-0.7, -0.35, 0.0, 0.35, 0.7]
    with pytest.raises(ValueError, match="odd number"):
        axis_of(points, 1.0)


def test_the_grid_is_that_of_a_loop_by_hand_and_the_model_is_as_before():
    state = new_state()
    x, y = samples(30)
    own = {name: one.clone() for name, one in parameters_of(state.model).items()}
    before = {name: one.clone() for name, one in state.model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    found = around(state)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(one, before[name]) for name, one in state.model.state_dict().items())
    assert state.model.training
    metrics = build_metrics(MetricsConfig(), lambda target: target)
    first, second = (direction(own, seed=1, number=number) for number in (0, 1))
    for row, by_second in enumerate((-1, 0, 1)):
        for column, by_first in enumerate((-1, 0, 1)):
            model = Net()
            model.load_state_dict(before)
            for name, one in model.named_parameters():
                one.data = own[name] + (by_first * first[name] + by_second * second[name])
            result = validate_epoch(
                model, batches(x, y, batch_size=8), step=cross_entropy(), metrics=metrics, seed=7
            )
            assert found.losses_PP[row, column] == result.values["loss"]
    assert found.centre == found.losses_PP[1, 1]
    assert np.array_equal(found.losses_PP, around(state).losses_PP)
    assert found.num_samples == 30


def test_an_error_in_the_middle_leaves_the_model_as_it_was():
    state, points = new_state(), []
    before = {name: one.clone() for name, one in state.model.state_dict().items()}

    def stop():
        points.append(1)
        if len(points) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        around(state, on_point=stop)
    assert all(torch.equal(one, before[name]) for name, one in state.model.state_dict().items())


def test_a_model_without_filters_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(TargetError, match="no parameter of two dimensions or more"):
        around(new_state(Flat))


@pytest.fixture
def project(tmp_path, home):
    settings = {"sampling": {"policy": "none"}, "ema": {"decay": 0.5}, "metrics": {"best": "loss"}}
    return Project(tmp_path / "project", epochs=3, **settings)


def drawn(project, *options, out="picture.png"):
    place = project.folder / out
    return call("landscape", str(project.config), "--out", str(place), *options, "--json")


SMALL = ("--points", "5")


def test_the_command_draws_around_a_checkpoint_whose_loss_is_the_validations(project):
    run = BareRun(project.config)()
    objects = sorted(project.store.rglob("*.*"))
    metrics = {
        one.epoch: one.values["metrics"]
        for one in run.view.records.values()
        if one.stage == "validate"
    }
    done = drawn(project, *SMALL)
    assert done.code == 0, done.err
    found = done.json
    assert (found["epoch"], found["samples"], found["not_finite"]) == (2, 90, 0)
    assert found["centre"] == metrics[2]["loss"]
    assert found["min"] <= found["centre"] <= found["max"]
    assert (project.folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    grid = json.loads((project.folder / "picture.json").read_text())
    assert np.shape(grid["losses"]) == (5, 5)
    assert grid["axis"] == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert grid["losses"][2][2] == found["centre"]
    assert sorted(project.store.rglob("*.*")) == objects
    averaged = drawn(project, *SMALL, "--epoch", "1", "--ema").json
    assert (averaged["weights"], averaged["centre"]) == ("ema", metrics[1]["ema/loss"])


def test_the_same_seed_gives_the_same_files_and_another_other_ones(project):
    BareRun(project.config)()
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        done = drawn(project, *SMALL, "--samples", "20", "--seed", seed, out=f"{out}.png")
        assert (done.code, done.json["samples"]) == (0, 20)
    for suffix in ("png", "json"):
        one, same, other = ((project.folder / f"{name}.{suffix}").read_bytes() for name in "abc")
        assert one == same != other


def test_what_is_not_finite_is_a_gap(project):
    BareRun(project.config)()
    done = drawn(project, "--points", "3", "--range", "1e6")
    assert done.code == 0, done.err
    project.write(
        "losses.py",
        """
        import torch
        from torch import nn

        class Broken(nn.Module):
            def forward(self, output, target):
                loss = nn.functional.cross_entropy(output, target, reduction="none")
                return torch.where(loss.mean() > 1.5, torch.inf, loss)
        """,
    )
    assert drawn(project, "--points", "3").code == 0
    settings = yaml.safe_load(project.config.read_text())
    settings |= {"epochs": 3, "loss": {"target": "losses:Broken"}, "gradients": {"accumulate": 2}}
    settings["optimizer"]["args"] = {"lr": 0.02}
    project.config.write_text(yaml.safe_dump(settings))
    changed = drawn(project, "--points", "3")
    assert changed.code == 2
    assert "the run was trained with" in " ".join(changed.err.split())
    run = BareRun(project.config)()
    assert math.isfinite(run.view.record_of(run.view.stages[-1]).values["metrics"]["loss"])
    done = drawn(project, "--points", "5", "--range", "3")
    assert done.code == 0, done.err
    grid = json.loads((project.folder / "picture.json").read_text())["losses"]
    gaps = sum(one is None for row in grid for one in row)
    assert done.json["not_finite"] == gaps > 0


def test_a_checkpoint_that_is_not_there_is_named(project):
    assert drawn(project).code == 2  # no such run yet
    BareRun(project.config, checkpoint="{keep_last: 2, keep_best: 0}")()
    done = drawn(project, "--epoch", "7")
    assert done.code == 2
    assert "epoch 7: it is not trained; the store has epochs up to 2" in " ".join(done.err.split())
    assert call("gc", str(project.store), "--yes").code == 0
    done = drawn(project, "--epoch", "0")
    assert done.code == 2
    assert "its checkpoint was removed by `epochal gc`" in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--points", "4"), "--points: found 4; expected an odd number"),
        (("--range", "0"), "--range: found 0.0; expected a number above 0"),
        (("--range", "nan"), "--range: found nan"),
        (("--out", "picture.jpg"), "expected a name that ends with .png"),
        (("--out", "nowhere/picture.png"), "there is no folder nowhere; make it first"),
        (("--store", "./empty"), "has no run 'blobs'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_computed(project, options, problem):
    done = call("landscape", "blobs", *options)
    assert done.code == 2
    assert problem in " ".join(done.err.split())
