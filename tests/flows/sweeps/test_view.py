"""What a person sees of a sweep: a table while it works, the results, and its plan."""

import io

import pytest
from rich.console import Console
from support.runs.project import call
from support.runs.sweeps import KNOWN, SweepProject, made_up, worked

from epochal.flows.sweeps.view import SweepView, duration, results_table
from epochal.tasks.sweeps.work import Told

VALUES = {0.0: 0.7, 0.1: 0.9, 0.5: 0.8}


def value(config, _epoch):
    return VALUES[config.schedule.final]


@pytest.fixture
def project(tmp_path):
    return SweepProject(tmp_path / "project", run=KNOWN, vary={"schedule.final": list(VALUES)})


def drawn(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_at_work_shows_each_runs_state_and_epoch(project):
    work = project.work()
    worked(work, made_up(value), most=1)
    job = work.next_job()
    work.told[job.name] = Told(doing="train", live={"update": 3, "num_updates": 4, "loss": 0.25})
    lines = drawn(SweepView(work).table(24))
    assert lines[0].split() == ["run", "state", "epoch", "now", "accuracy"]
    assert lines[1].split() == ["blobs-final0", "done", "3/3", "0.7"]
    assert lines[2].split() == [
        "blobs-final0.1", "at", "work", "2/3", "train", "75%", "loss", "0.25", "0.7",
    ]  # fmt: skip
    assert lines[3].split()[:2] == ["blobs-final0.5", "waiting"]
    assert SweepView(work).summary() == "3 of 5 epochs · 3 runs: 1 done, 1 at work, 1 waiting"


def test_of_many_runs_those_at_work_are_shown_and_the_others_counted(tmp_path):
    project = SweepProject(tmp_path / "many", run=KNOWN, vary={"seed": list(range(40))})
    work = project.work()
    for _ in range(3):
        work.next_job()
    lines = drawn(SweepView(work).table(12))
    assert len(lines) == 8
    assert sum("at work" in line for line in lines) == 3
    assert lines[-1] == "… and 34 more"


def test_the_results_are_sorted_by_the_metric_and_show_what_differs(project):
    work = project.work()
    worked(work, made_up(value))
    lines = drawn(results_table(work))
    assert lines[0] == "sweep blobs, by accuracy"
    assert lines[1].split() == ["accuracy", "best", "in", "epoch", "final", "state", "run"]
    assert [line.split()[-1] for line in lines[2:]] == [
        "blobs-final0.1", "blobs-final0.5", "blobs-final0",
    ]  # fmt: skip
    assert lines[2].split()[:5] == ["0.9", "0.9", "2", "0.1", "done"]
    assert max(map(len, lines)) <= 80


def test_a_plan_says_what_is_shared_done_and_left_and_what_it_costs(project):
    done = call("plan", str(project.sweep))
    assert done.code == 0, done.err
    assert "3 runs have 9 epochs, of which 5 are distinct" in done.out
    assert "cost: not known" in done.out
    worked(project.work(), made_up(value), most=1)
    told = call("plan", str(project.sweep)).out
    assert "3 of 5 epochs done, 2 would run" in told
    assert "cost: about 8 s of work, by 3 timed like epochs" in told
    body = call("plan", str(project.sweep), "--json").json
    assert body["epochs"] == {"distinct": 5, "sum": 9, "done": 3}
    assert body["seconds"] == 8.0
    assert body["runs"][1] == {
        "run": "blobs-final0.1", "set": {"schedule.final": 0.1}, "epochs": 3, "done": 2,
    }  # fmt: skip


def test_a_run_and_a_sweep_are_not_taken_for_each_other(project):
    for command in ("train", "show"):
        done = call(command, str(project.sweep))
        assert done.code == 2
        assert "it is the file of a sweep" in done.err
    done = call("sweep", str(project.config))
    assert done.code == 2
    assert "it is the config of a run" in done.err


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "0.5 s"), (90, "90 s"), (300, "5 min"), (9000, "2.5 h")]
)
def test_durations_are_as_people_read_them(seconds, shown):
    assert duration(seconds) == shown
