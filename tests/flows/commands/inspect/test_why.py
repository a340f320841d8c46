"""`epochal why` as it is called: what it prints, refuses, opens, and its exit codes."""

import subprocess
import sys

import pytest
from support.runs.bare_run import copy_of, finished_project
from support.runs.project import call


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("why"))


def test_an_update_is_shown_within_80_columns(project, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = call("why", str(project.config), "--update", "8")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "blobs@1  update 8  epoch 1, its update 2 of 6"
    assert max(map(len, lines)) <= 80
    assert "and 20 more; --json has all" in lines
    assert any(line.startswith("8 (this one)") for line in lines)


def test_json_is_one_object_with_what_the_update_was_made_of(project):
    body = call("why", str(project.config), "--update", "8", "--json").json
    assert (body["run"], body["epoch"], body["update"], len(body["samples"])) == ("blobs", 1, 8, 32)
    assert set(body["samples"][0]) >= {"sample_id", "loss", "label", "earlier"}
    assert set(body["gradients"]) == {"norm", "norm_clipped", "groups"}
    assert "replayed" not in body


def test_a_replay_that_agrees_ends_with_0_and_one_that_does_not_with_3(project, tmp_path):
    again = call("why", str(project.config), "--update", "8", "--replay", "--json")
    assert (again.code, again.json["replayed"]) == (0, True)
    copy = copy_of(project, tmp_path / "copy", epochs=2)
    model = (copy.folder / "model.py").read_text().replace("Dropout(0.2)", "Dropout(0.3)")
    copy.write("model.py", model)
    changed = call("why", str(copy.config), "--update", "8", "--replay")
    assert changed.code == 3
    assert "computed again, and not all is as it was" in changed.out
    assert "but for what has changed since it was planned" in changed.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--update", "13"), "--update 13: blobs@1 has updates 1 to 12, of epochs 0 to 1"),
        (("--epoch", "2"), "--epoch 2: blobs@1 has trained epochs 0 to 1"),
        (("--update", "1", "--spike"), "--spike looks for one; give one of them"),
        (("--update", "1", "--hook", "a:b"), "add --replay"),
        (("--update", "1", "--pictures", "x.jpg"), "expected a name that ends with .png"),
        (("--update", "1", "--pictures", "x.png"), "its input is a Tensor of shape (6,)"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_2(project, options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("why", str(project.config), *options)
    assert done.code == 2
    assert says in done.err
    assert not list(tmp_path.iterdir())


def test_a_run_without_tables_is_refused_with_2(project, tmp_path):
    copy = copy_of(project, tmp_path / "copy", epochs=2)
    for path in copy.store.glob("stages/*/*.parquet"):
        path.unlink()
    done = call("why", str(copy.config), "--update", "1")
    assert done.code == 2
    assert "blobs@1 has no trained epoch in" in done.err


@pytest.mark.slow
def test_the_debugger_stops_before_the_step_and_can_be_left(project):
    def debugged(commands):
        return subprocess.run(
            [
                *(sys.executable, "-m", "epochal.flows.cli", "why", str(project.config)),
                *("--update", "8", "--replay", "--debug"),
            ],
            input=commands, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = debugged("p at.update, len(batch[0])\nn\np tuple(output.loss_B.shape)\nc\n")
    assert done.returncode == 0, done.stderr
    assert "(Pdb) (8, 16)" in done.stdout
    assert "(Pdb) (16,)" in done.stdout
    assert "has the same bits" in done.stdout
    left = debugged("q\n")
    assert left.returncode == 75
    assert "left in the debugger: nothing was compared" in left.stderr
