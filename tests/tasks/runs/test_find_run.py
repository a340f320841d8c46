"""Which run is meant, and where it is looked for."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment

from epochal.tasks.runs.find_run import find_run

COMMANDS = {
    "show": (),
    "samples": (),
    "export": ("--out", "weights.safetensors"),
    "report": ("--out", "report.html"),
    "landscape": ("--out", "landscape.png"),
    "sync": (),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose run is done in the config's store, and in `other` with another rate."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(tmp_path_factory.mktemp("project") / "project", epochs=1)
        BareRun(project.config)()
        BareRun(project.config, store="./other", optimizer__args__lr=0.5)()
        yield project


def test_a_config_names_the_run_in_its_own_store_unless_another_store_is_given(project):
    other = project.store.parent / "other"
    own = find_run(str(project.config))
    assert own.store.url == f"file://{project.store}"
    rate = ["optimizer.args.lr=0.5"]
    found = find_run(str(project.config), store=str(other), overrides=rate)
    assert found.store.url == f"file://{other}"
    assert found.weights_sha256 != own.weights_sha256
    assert found.own is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_looks_in_the_store_that_is_given(command, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = call(command, str(project.config), *COMMANDS[command], "--store", str(empty))
    assert done.code == 2
    assert f"{empty} has no run" in done.err.replace("\n", " ")


@pytest.mark.parametrize("command", ["runs", "verify", "gc"])
def test_a_store_that_is_not_there_is_not_a_good_one(command, tmp_path, monkeypatch):
    """A mistyped path must not read as "every digest is right"."""
    monkeypatch.chdir(tmp_path)
    mistyped = call(command, "./stroe")
    assert mistyped.code == 2
    assert f"there is no store at {tmp_path / 'stroe'}" in mistyped.err.replace("\n", " ")
    fresh = Project(tmp_path / "project", epochs=1)
    untrained = call(command, str(fresh.config))
    assert untrained.code == 2
    assert "`epochal train" in untrained.err
    assert not fresh.store.exists()
