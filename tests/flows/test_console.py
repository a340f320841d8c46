"""What a command prints of a person's own names: the names themselves, and paths that exist."""

import shlex
from pathlib import Path

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

METRIC = """
    class Parts:
        def update(self, outputs, target):
            pass

        def compute(self):
            return {"[/x]": 0.25, "[bold]": 0.5, "<10": 0.75, "\\x1b[31mred": 1.0, "$a$": 0.1}
"""


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    made = Project(
        tmp_path / "x[old] a$b$ :smile:",
        epochs=1,
        sampling={"policy": "none"},
        metrics={"validation": [{"name": "parts", "target": "parts:Parts"}, "accuracy"]},
    )
    made.write("parts.py", METRIC)
    BareRun(made.config)()
    monkeypatch.chdir(made.folder)
    return made


def test_names_of_metrics_and_folders_are_shown_as_they_are(project):
    for arguments in (("show", "blobs"), ("show", "run.yaml"), ("runs", "run.yaml")):
        done = call(*arguments)
        assert done.code == 0, done.err
        assert "\x1b" not in done.out
    shown = call("show", "run.yaml").out
    assert f"store    file://{project.store}\n" in shown
    for part in ("[/x]", "[bold]", "<10", "\\x1b[31mred"):
        assert part in shown
    assert f"{project.store}".endswith("x[old] a$b$ :smile:/store")


@pytest.mark.parametrize("name", ["r[bold].html", "o[/x].html", ":smile:.html", "a b.html"])
def test_a_path_that_is_printed_is_the_path_that_was_written(project, name):
    Path(name).parent.mkdir(exist_ok=True)
    done = call("report", "run.yaml", "--out", name)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{name}  ")
    assert Path(name).is_file()


@pytest.mark.parametrize("name", ["o[/x].safetensors", "[red]o.safetensors"])
def test_weights_are_written_where_the_command_says(project, name):
    Path(name).parent.mkdir(exist_ok=True)
    done = call("export", "run.yaml", "--out", name)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{name}  blobs@1  epoch 0  ")
    assert Path(name).is_file()


def test_the_tables_that_are_named_are_there(project):
    lines = call("samples", "blobs").out.splitlines()
    (path,) = (line.split(maxsplit=1)[1] for line in lines if line.startswith("observations"))
    assert Path(path).is_file()


def test_errors_show_names_as_they_are_on_one_line(project):
    done = call("show", "nothing[x]\x1b[2J")
    assert done.code == 2
    assert "there is no run 'nothing[x]\\x1b[2J'" in done.err
    assert call("plan", "[/x].yaml").err.startswith("error: [/x].yaml: there is no such file")


def test_the_next_command_that_is_shown_can_be_typed(project):
    from epochal.flows.commands.train import _where_to_look
    from epochal.tasks.config.load import load_config

    result = {"mlflow_tracking_uri": "sqlite:///x", "weights_sha256": "0"}
    lines = _where_to_look(
        load_config(project.config), result, {"Prefect": "http://ui"}, reference="blobs@1",
        store=f"file://{project.store}", average=None,
        given="run.yaml --set epochs=4 --set loader.batch_size=8",
    )  # fmt: skip
    epochs = load_config(project.config).epochs + 4
    (longer,) = [line for line in lines if " plan " in line]
    assert shlex.split(longer, comments=True)[-6:] == [
        "plan", "run.yaml", "--set", "loader.batch_size=8", "--set", f"epochs={epochs}",
    ]  # fmt: skip
    words = shlex.split(lines[-1])
    assert words[words.index("--store") + 1] == str(project.store)
    assert call(*words[words.index("samples") :]).code == 0
