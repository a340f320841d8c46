"""A config's path means the generation that the config describes, whichever was trained last."""

import json
import shutil

import pytest
import yaml
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.errors import InputError, NotFound
from epochal.tasks.config.load import load_config
from epochal.tasks.runs.find_run import find_run

RATE = "optimizer.args.lr=0.02"
SMALL = {"epochs": 1, "sampling": {"policy": "none"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store that holds a run as its config says, and then one with another rate."""
    made = Project(tmp_path_factory.mktemp("trained") / "project", **SMALL)
    BareRun(made.config)()
    BareRun(made.config, optimizer__args__lr=0.02)()
    return made.store


@pytest.fixture
def project(tmp_path, home, trained):
    made = Project(tmp_path / "project", **SMALL)
    shutil.copytree(trained, made.store)
    return made


def found(project, *overrides, **more):
    return find_run(str(project.config), overrides=overrides, **more)


def test_a_config_means_its_own_generation_after_another_was_trained(project):
    assert found(project).plan.reference == "blobs@1"
    assert found(project, RATE).plan.reference == "blobs@2"
    assert find_run("blobs", store=project.store.as_uri()).plan.reference == "blobs@2"


@pytest.mark.parametrize(
    "changes", [(), ("tracking.experiment=x",), ("epochs=3",), ("device=cpu",)]
)
def test_what_is_in_no_key_and_another_length_are_the_same_generation(project, changes):
    assert found(project, *changes).plan.reference == "blobs@1"
    assert found(project, RATE, *changes).plan.reference == "blobs@2"


def test_of_one_generation_the_plan_with_the_configs_own_epochs_is_taken(project):
    BareRun(project.config, epochs=2)()
    assert len(list(found(project).of_kind("train"))) == 1
    assert len(list(found(project, "epochs=2").of_kind("train"))) == 2


def test_what_is_in_no_key_is_as_the_config_says_it_now(project):
    assert found(project).best.metric == "accuracy"
    assert found(project, "metrics.best=loss").best.metric == "loss"


def test_a_config_that_nobody_trained_is_refused_with_what_differs(project):
    with pytest.raises(NotFound) as caught:
        found(project, "optimizer.args.lr=0.5")
    text = str(caught.value)
    assert "blobs@1: optimizer.args.lr: 0.01 → 0.5" in text
    assert "blobs@2: optimizer.args.lr: 0.02 → 0.5" in text
    assert "Name one of them, such as blobs@2" in text


@pytest.mark.parametrize(
    "change",
    [
        "train_data.args.size=170", "validation_data.args.size=80", "model.args.width=8", "seed=4",
        "gradients.accumulate=1", "loader.batch_size=15", "loss.target=torch.nn:MultiMarginLoss",
        "schedule={kind: cosine}", "metrics.validation=[f1]", "start.from=./nothing.safetensors",
    ],
)  # fmt: skip
def test_whatever_changes_numbers_is_another_generation(project, change):
    with pytest.raises(NotFound, match=change.partition("=")[0].partition(".")[0]):
        found(project, change)


def test_data_of_the_same_content_under_other_arguments_is_the_same_generation(project):
    same = "train_data.args.shift=0.0"
    BareRun(project.config, train_data__args__shift=0.0)
    assert found(project, same).plan.reference == "blobs@1"


def test_code_that_changed_since_is_told_and_the_run_is_still_found(project):
    source = project.folder / "model.py"
    source.write_text(source.read_text().replace("Dropout(0.2)", "Dropout(0.3)"))
    told = []
    assert found(project, notice=told.append).plan.reference == "blobs@1"
    assert "blobs@1" in told[0]
    assert "model model.py in Net.__init__: " in told[0]
    BareRun(project.config)()
    told.clear()
    assert found(project, notice=told.append).plan.reference == "blobs@3"
    assert told == []
    source.write_text("def (")
    assert found(project, notice=told.append).plan.reference == "blobs@3"
    assert "model.py: cannot be read as Python" in told[0]


def test_a_former_state_of_the_code_finds_its_own_generation(project):
    source = project.folder / "model.py"
    before = source.read_text()
    source.write_text(before.replace("Dropout(0.2)", "Dropout(0.3)"))
    BareRun(project.config)()
    assert found(project).plan.reference == "blobs@3"
    source.write_text(before)
    assert found(project).plan.reference == "blobs@1"


def test_a_run_by_updates_and_one_by_a_function_of_the_users_are_found(project):
    project.write("rates.py", "def half(t, low=0.5):\n    return 1 - low * min(t, 1)\n")
    custom = "schedule={kind: custom, target: 'rates:half'}"
    for changes in (("max_updates=4",), (custom,), (custom, "epochs=2")):
        sets = dict(change.split("=", 1) for change in changes)
        run = BareRun(project.config, **sets)
        assert found(project, *changes).plan == run.plan
        assert found(project).plan.reference == "blobs@1"


def test_without_any_run_it_says_so(tmp_path, home):
    with pytest.raises(NotFound, match="has no run 'blobs'; it has no run yet"):
        found(Project(tmp_path / "other"))


def test_the_store_that_is_named_is_looked_in_whatever_the_config_says(project, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(project.store, moved)
    assert found(project, store=str(moved)).plan.reference == "blobs@1"
    assert found(project, RATE, store=str(moved)).store.url == moved.as_uri()
    with pytest.raises(NotFound, match=str(project.store)):
        found(project)


def test_a_store_is_named_once(project, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="names a store too"):
        find_run(f"{project.store}/blobs", store=str(tmp_path))
    with pytest.raises(InputError, match="--set seed=1: it changes a config, and 'blobs' names"):
        find_run("blobs", store=str(project.store), overrides=["seed=1"])
    monkeypatch.setenv("EPOCHAL_STORE", str(tmp_path / "elsewhere"))
    assert find_run(f"{project.store}/blobs@1").plan.generation == 1
    assert found(project).plan.generation == 1


READING = {
    "show": (),
    "samples": (),
    "export": ("--out", "out.safetensors"),
    "report": ("--out", "r.html"),
}  # fmt: skip


@pytest.mark.parametrize("command", READING)
def test_every_command_that_takes_a_config_names_the_generation_that_it_reads(
    command, project, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    for arguments, reference in (((), "blobs@1"), (("--set", RATE), "blobs@2")):
        done = call(command, str(project.config), *READING[command], *arguments)
        assert done.code == 0, done.err
        assert reference in done.out
    done = call(command, str(project.config), *READING[command], "--set", "seed=9")
    assert done.code == 2
    assert "seed: 3 → 9" in done.err
    done = call(command, str(project.config), *READING[command], "--store", str(tmp_path / "w0"))
    assert done.code == 2
    assert "w0" in done.err


def test_the_weights_that_are_exported_are_those_that_the_config_describes(project, tmp_path):
    first, second = found(project).weights_sha256, found(project, RATE).weights_sha256
    assert first != second
    for arguments, weights, generation in (((), first, 1), (("--set", RATE), second, 2)):
        out = str(tmp_path / "out.safetensors")
        done = call("export", str(project.config), "--out", out, *arguments, "--json").json
        assert (done["weights_sha256"], done["generation"]) == (weights, generation)


def test_a_store_may_be_named_by_a_config_whose_store_it_is(project):
    for command in ("runs", "verify", "gc"):
        done = call(command, str(project.config), "--json")
        assert done.code == 0, done.err
        assert done.json["store"] == project.store.as_uri()


def test_a_config_in_json_is_a_config_too(project):
    config = yaml.safe_load(project.config.read_text())
    other = project.folder / "run.json"
    other.write_text(json.dumps(config, indent=1))
    assert load_config(other).name == "blobs"
    assert find_run(str(other)).plan.reference == "blobs@1"
