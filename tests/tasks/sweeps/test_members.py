"""The runs of a sweep: what each has of its own, its name, and what is refused before a start."""

import pytest
import yaml
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.sweeps.members import is_sweep, load_sweep


@pytest.fixture
def load(tmp_path):
    project = Project(tmp_path / "project")

    def load(*, overrides=(), **sweep):
        path = project.folder / "sweep.yaml"
        path.write_text(yaml.safe_dump({"run": "run.yaml", **sweep}, sort_keys=False))
        return load_sweep(path, overrides=overrides)

    return load


def names(sweep):
    return [member.name for member in sweep.members()]


def test_a_grid_has_every_combination_in_the_order_of_its_fields(load):
    sweep = load(vary={"optimizer.args.lr": [0.003, 1e-5], "seed": [1, 2]})
    assert names(sweep) == [
        "blobs-lr0.003-seed1", "blobs-lr0.003-seed2", "blobs-lr1e-5-seed1", "blobs-lr1e-5-seed2",
    ]  # fmt: skip
    member = sweep.members()[2]
    assert member.set == {"optimizer.args.lr": 1e-5, "seed": 1}
    assert (member.config.optimizer.args["lr"], member.config.seed) == (1e-5, 1)
    assert member.config.name == member.name


def test_a_list_of_runs_has_what_stands_in_it(load):
    sweep = load(
        name="own", runs=[{"seed": 1}, {"seed": 2, "epochs": 8}, {"name": "big", "seed": 9}]
    )
    assert names(sweep) == ["own-seed1", "own-seed2-epochs8", "big"]
    assert [member.set for member in sweep.members()][2] == {"seed": 9}


def test_names_tell_fields_of_one_name_apart_and_groups_by_what_differs_in_them(load):
    wsd = {"kind": "warmup_stable_decay", "decay": 1}
    assert names(load(vary={"schedule": [{**wsd, "final": 0.0}, {**wsd, "final": 0.1}]})) == [
        "blobs-final0", "blobs-final0.1",
    ]  # fmt: skip
    assert names(load(vary={"schedule": [wsd, {"kind": "cosine"}]})) == [
        "blobs-warmup_stable_decay", "blobs-cosine",
    ]  # fmt: skip
    both = {"model.args.width": [8], "train_data.args.size": [9], "validation_data.args.size": [9]}
    assert names(load(vary=both)) == ["blobs-width8-train_data.size9-validation_data.size9"]


def test_names_that_would_be_the_same_are_told_apart_and_stay_below_a_runs_limit(load):
    near = names(load(vary={"optimizer.args.lr": [0.100001, 0.100002]}))
    assert len({*near}) == 2
    assert all(name.startswith("blobs-lr0.1-") for name in near)
    long = names(load(vary={f"model.args.{'x' * 60}{n}": [n] for n in range(3)}))
    assert [len(name) for name in long] == [100]


def test_what_is_drawn_depends_on_the_seed_and_the_runs_number_alone(load):
    vary = {
        "optimizer.args.lr": {"log_uniform": [1e-4, 1e-1]},
        "optimizer.args.weight_decay": {"uniform": [0, 0.5]},
        "loader.batch_size": {"int": [4, 8]},
        "model.args.width": {"log_int": [1, 64]},
        "seed": [1, 2, 3],
    }
    few = load(vary=vary, random={"runs": 20}).members()
    many = load(vary=vary, random={"runs": 40}).members()
    other = load(vary=vary, random={"runs": 20, "seed": 1}).members()
    assert [one.set for one in many][:20] == [one.set for one in few]
    assert [one.set for one in other] != [one.set for one in few]
    drawn = {name: {one.set[name] for one in many} for name in vary}
    assert all(1e-4 <= rate <= 1e-1 for rate in drawn["optimizer.args.lr"])
    assert sum(rate < 1e-2 for rate in drawn["optimizer.args.lr"]) > 20
    assert drawn["loader.batch_size"] == {4, 5, 6, 7, 8}
    assert drawn["seed"] == {1, 2, 3}
    assert sum(width <= 8 for width in drawn["model.args.width"]) > 5
    assert len(load(vary={"seed": [1, 2]}, random={"runs": 50}).members()) == 2


def test_a_command_lines_changes_are_those_of_all_runs(load):
    sweep = load(
        vary={"seed": [1, 2]}, set={"epochs": 7}, overrides=["epochs=9", "optimizer.args.lr=1"]
    )
    assert {(one.config.epochs, one.config.optimizer.args["lr"]) for one in sweep.members()} == {
        (9, 1)
    }


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({}, "expected either `vary`"),
        ({"vary": {"seed": [1]}, "runs": [{"seed": 1}]}, "expected either `vary`"),
        ({"vry": {"seed": [1]}}, "did you mean 'vary'"),
        ({"vary": {"seed": 3}}, "vary.seed: found 3; expected a list"),
        ({"vary": {"seed": []}}, "vary.seed: found an empty list"),
        ({"vary": {"seed": {"int": [1, 2]}}}, "give `random: {runs: N}`"),
        ({"vary": {"seed": {"norm": [1]}}, "random": {"runs": 1}}, "no such distribution"),
        ({"vary": {"seed": {"int": [2, 1]}}, "random": {"runs": 1}}, "2 is not below 1"),
        ({"vary": {"x": {"log_uniform": [0, 1]}}, "random": {"runs": 1}}, "has no magnitude"),
        ({"vary": {"store": ["a"]}}, "vary.store: all runs of a sweep share one store"),
        ({"vary": {"name": ["a"]}}, "the runs are named after"),
        ({"runs": [{"seed": 1}, {"seed": 1}]}, "is runs\\[0\\] once more"),
        ({"vary": {"seed": [1]}, "halving": {"rungs": [2, 1]}}, "not rising"),
        ({"vary": {"seed": [1]}, "devices": ["gpu"]}, "expected cpu, cuda"),
        ({"vary": {"seed": [1], "optimizer.lr": [2]}}, "optimizer.lr: there is no such key"),
        ({"vary": {"seed": ["a", 2, -1]}}, "seed-1"),
        ({"vary": {"model.target.x": [1]}}, "model.target is not a group"),
        ({"run": "none.yaml", "vary": {"seed": [1]}}, "none.yaml: there is no such file"),
        ({"run": "sweep.yaml", "vary": {"seed": [1]}}, "sweep.yaml is a sweep"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_starts(load, sweep, words):
    with pytest.raises(ConfigError, match=words):
        load(**sweep).members()


def test_all_runs_that_are_wrong_are_named_at_once(load):
    with pytest.raises(ConfigError) as told:
        load(vary={"epochs": [1, 0, -1]}).members()
    assert "run[1] (blobs-epochs0): epochs: found 0" in str(told.value)
    assert "run[2] (blobs-epochs-1): epochs: found -1" in str(told.value)


def test_a_sweeps_file_is_told_from_a_runs(tmp_path):
    project = Project(tmp_path / "project")
    (tmp_path / "sweep.yaml").write_text("run: x.yaml\nvary: {seed: [1]}\n")
    assert is_sweep(tmp_path / "sweep.yaml")
    assert not is_sweep(project.config)
