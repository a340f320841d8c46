"""Commands that read a store: what they show, and what they say where there is nothing to read."""

import io
import re

import pytest
from support.runs.bare_run import BareRun
from support.runs.failing_code import FAILING, metric
from support.runs.project import Project, call

from epochal.data.documents import dump_document
from epochal.flows import console


@pytest.fixture
def project(tmp_path, home):
    made = Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})
    made.write("failing.py", FAILING)
    BareRun(made.config, metrics__validation=metric(given="nan"), metrics__best="mine")()
    return made


def test_an_export_of_the_best_epoch_says_why_none_is(project, tmp_path):
    done = call("export", f"{project.store}/blobs", "--epoch", "best", "--out", str(tmp_path / "x"))
    assert done.code == 2
    assert "blobs@1 has no best epoch: 'mine' is NaN or infinite in its epoch validated" in done.err
    assert not (tmp_path / "x").exists()


def test_a_start_from_the_best_epoch_says_why_none_is(project):
    done = project("plan", name="next", start=f"{{from: '{project.store}/blobs:best'}}")
    assert done.code == 2
    assert "start.from: blobs@1 has no best epoch: 'mine' is NaN" in done.err


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of two generations; a command has noted when the first was trained."""
    made = Project(tmp_path_factory.mktemp("stored") / "project", epochs=1)
    BareRun(made.config)()
    BareRun(made.config, optimizer__args__lr=0.02)()
    attempts = made.store / "runs" / "blobs" / "attempts"
    attempts.mkdir()
    for number, body in enumerate(
        [{"plan": "blobs@1", "started_ms": 1772668800000}, {"plan": "blobs@1"}, {"other": 1}]
    ):
        name = f"{1772668800000 - number}-0123456{number}.json"
        (attempts / name).write_bytes(dump_document(body))
    (attempts / "notes.txt").write_text("a person's own")
    return made


@pytest.fixture
def trained(stored, home, monkeypatch):
    """The same, from beside its store."""
    monkeypatch.chdir(stored.folder)
    return stored


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal, of a width that a test sets."""
    file = io.StringIO()
    file.isatty = lambda: True
    made = console.PlainConsole(file=file, force_terminal=True, color_system=None)
    monkeypatch.setattr(console, "out", made)
    return made


def shown(terminal, width, *arguments):
    terminal.width = width
    terminal.file.seek(0)
    terminal.file.truncate()
    assert call(*arguments).code == 0
    return terminal.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_the_terminal_and_say_what_they_leave_out(trained, terminal, width):
    for command in (("show", "blobs"), ("runs", str(trained.store)), ("samples", "blobs")):
        text = re.sub(r"\x1b\[[^m]*m", "", shown(terminal, width, *command))
        table = text.strip().split("\n\n")[0]
        assert max(len(line.rstrip()) for line in table.splitlines()) <= width
    assert ("not shown here:" in shown(terminal, width, "samples", "blobs")) == (width < 120)


def test_a_column_in_which_there_is_nothing_is_not_shown(trained):
    text = call("show", "blobs").out
    assert "accuracy" in text
    assert "cached" not in text


def test_generations_are_told_apart_by_when_and_by_what_differs(trained):
    lines = call("runs", str(trained.store)).out.splitlines()
    assert lines[0].split("  ")[0] == "run"
    first, second = (line for line in lines if line.startswith("blobs@"))
    assert re.search(r"1 of 1 .* 2026-03-0[45] \d\d:\d\d ", first)
    assert "optimizer.args.lr" not in first
    assert "blobs@1 after 0 epochs: optimizer.args.lr: 0.01 → 0.02" in second


def test_a_folder_that_is_there_is_taken_as_a_store(trained, monkeypatch):
    monkeypatch.chdir(trained.folder.parent)
    place = f"{trained.folder.name}/store"
    assert "blobs@2" in call("runs", place).out
    assert "run blobs@2" in call("show", f"{place}/blobs").out
    assert "run blobs@1" in call("show", "blobs@1", "--store", place).out
    done = call("runs", "nothing/store")
    assert done.code == 2
    assert "nothing/store" in done.err
