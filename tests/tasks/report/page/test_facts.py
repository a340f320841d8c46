"""What a page says of a run: when, where, of which commit, unlike which other run."""

import subprocess

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.report.page.curves import run_progress
from epochal.tasks.report.page.facts import changes, differing, duration, run_facts
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.summary import epoch_rows


def facts(project):
    run = find_run(str(project.config))
    return run_facts(run, epoch_rows(run), run_progress(run, run.stage_store, None), None)


def git(folder, *arguments):
    own = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *own, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_says_when_where_and_from_which_commit_it_was_computed(
    tmp_path, tracker, monkeypatch
):
    monkeypatch.setattr("socket.gethostname", lambda: "workbench")
    project = Project(tmp_path / "project", epochs=2)
    git(project.folder, "init", "--quiet")
    git(project.folder, "add", "model.py", "blobs.py")
    git(project.folder, "commit", "--quiet", "--message", "first")
    with active_run(load_config(project.config)) as active:
        for stage in active.run.stages():
            active.run.run_stage(stage)
    found = facts(project)
    assert found["host"] == "workbench"
    assert found["commit"] == git(project.folder, "rev-parse", "HEAD")[:12]
    assert found["began"].endswith(" UTC")
    assert found["last worked on"] >= found["began"]
    assert found["epochs"] == "2 of 2"


def test_a_run_that_nobody_wrote_down_has_the_other_facts(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    BareRun(project.config)()
    found = facts(project)
    assert {"host", "commit", "torch", "branched from"}.isdisjoint(found)
    assert found["seed"] == "3"


def test_changes_are_of_fields_code_and_data_and_not_of_places(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    BareRun(project.config)()
    first = find_run(str(project.config)).plan
    project.write("model.py", (project.folder / "model.py").read_text() + "\nEXTRA = 1\n")
    BareRun(project.config, optimizer__args__lr=0.5, train_data__version="two")
    second = find_run("blobs", store=str(project.store)).plan
    found = changes(first, second)
    assert "optimizer.args.lr: 0.01 → 0.5" in found
    assert any(one.startswith("model model.py") for one in found)
    assert any(one.startswith("train_data content: ") for one in found)
    assert changes(first, first) == []
    moved = first.model_copy(update={"config": {**first.config, "folder": "/elsewhere"}})
    assert changes(first, moved) == []


def test_a_table_of_runs_has_the_rows_in_which_they_differ(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    BareRun(project.config)
    BareRun(project.config, optimizer__args__lr=0.5)
    runs = [find_run(f"blobs@{number}", store=str(project.store)) for number in (1, 2)]
    assert differing(runs) == [["optimizer.args.lr", "0.01", "0.5"]]
    assert differing([runs[0], runs[0]]) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (59.9, "59.9 s"), (200, "3 min 20 s"), (3840, "1 h 04 min")],
)
def test_a_duration_is_told_as_a_person_tells_it(seconds, text):
    assert duration(seconds) == text
