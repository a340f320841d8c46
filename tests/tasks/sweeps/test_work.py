"""A sweep at work: each stage once, a trunk before its branches, and every run as if alone."""

from types import SimpleNamespace

import pytest
from support.runs.bare_run import BareRun
from support.runs.sweeps import KNOWN, SweepProject, made_up, trained, worked

from epochal.tasks.running.open import open_run
from epochal.tasks.running.run import Run
from epochal.tasks.sweeps.work import Failure

FINALS = {"schedule.final": [0.0, 0.1, 0.5]}
RATES = {1e-7: 0.1, 1e-2: 0.9, 1e-6: 0.2, 3e-3: 0.8}
"""Rate → the accuracy that it leads to."""
HALVING = {
    "run": {"epochs": 4, "schedule": {"kind": "constant"}, **KNOWN},
    "vary": {"optimizer.args.lr": list(RATES)},
    "halving": {"rungs": [1, 2], "factor": 2},
}


def by_rate(config, _epoch):
    return RATES[config.optimizer.args["lr"]]


flat = made_up(lambda *_: 0.5)


@pytest.fixture
def branches(tmp_path):
    return SweepProject(tmp_path / "branches", vary=FINALS, run=KNOWN)


def test_a_trunk_is_trained_once_and_each_run_ends_as_it_does_alone(tmp_path):
    two = {"run": {"epochs": 2}}
    project = SweepProject(tmp_path / "sweep", vary={"schedule.final": [0.0, 0.5]}, **two)
    work = project.work()
    assert (work.tree.epochs_distinct, work.tree.epochs_sum) == (3, 4)
    assert worked(work, trained) == [("blobs-final0", None), ("blobs-final0.5", None)]
    result = work.result()
    assert result["epochs"] == {"distinct": 3, "sum": 4, "computed": 3}
    first, second = result["runs"]
    assert first["weights_sha256"] != second["weights_sha256"]
    alone = SweepProject(tmp_path / "alone", **two)
    assert BareRun(alone.config, schedule__final=0.5)().weights == second["weights_sha256"]
    again = project.work()
    assert again.tree.epochs_done == 3
    assert again.result()["runs"] == result["runs"]


def test_branches_wait_for_the_trunk_and_begin_while_its_run_goes_on(branches):
    work = branches.work()
    first = work.next_job()
    assert work.next_job() is None  # all that the others need first is being trained
    assert work.tree.awaited("blobs-final0.5", None, work.at_work) == first.name

    class Stop(Exception):
        """After the trunk."""

    def until_the_trunk_is_there(config, epoch):
        if epoch == 2:
            raise Stop
        return 0.5

    with pytest.raises(Stop):
        made_up(until_the_trunk_is_there)(work, first)
    assert first.name in work.at_work
    assert {work.next_job().name, work.next_job().name} == {"blobs-final0.1", "blobs-final0.5"}
    assert work.next_job() is None


def test_what_is_shared_shows_before_any_data_is_read(tmp_path):
    work = SweepProject(tmp_path / "unread", vary=FINALS).work()
    assert {run.unread for run in work.tree.runs.values()} == {("train_data", "validation_data")}
    assert (work.tree.epochs_distinct, work.tree.epochs_sum) == (5, 9)
    assert work.next_job() is not None
    assert work.next_job() is None


def test_data_that_has_changed_since_it_was_read_gives_all_runs_other_stages(tmp_path):
    project = SweepProject(tmp_path / "changed", vary={"schedule.final": [0.0, 0.5]})
    work = project.work()
    job = work.next_job()
    before = {key for run in work.tree.runs.values() for key in run.keys[1:]}  # of the epochs
    open_run(job.config).close()
    work.opened(job.name)
    assert not any(run.unread for run in work.tree.runs.values())
    assert before.isdisjoint(key for run in work.tree.runs.values() for key in run.keys)
    assert work.next_job() is None


def test_of_several_trunks_the_longest_run_begins_first(tmp_path):
    runs = [{"epochs": 2}, {"epochs": 4}, {"epochs": 3, "seed": 9}]
    work = SweepProject(tmp_path / "several", runs=runs, run=KNOWN).work()
    assert [work.next_job().name for _ in range(2)] == ["blobs-epochs4", "blobs-epochs3-seed9"]
    assert work.next_job() is None


def test_a_failed_run_ends_no_other_and_takes_those_that_need_its_stage(tmp_path):
    runs = [{"seed": 1, "schedule.final": final} for final in (0.1, 0.2)] + [{"seed": 2}]
    work = SweepProject(tmp_path / "failing", runs=runs, run=KNOWN).work()
    fails = made_up(lambda *_: 0.5, fails=lambda job: job.config.seed == 1)
    assert len(worked(work, fails)) == 2  # the second would fail at the very stage of the first
    assert list(work.states.values()) == ["failed", "failed", "done"]
    assert work.failures["blobs-seed1-final0.2"].text == "as blobs-seed1-final0.1: it explodes"
    result = work.result()["runs"]
    assert [one["weights_sha256"] is None for one in result] == [True, True, False]
    assert [one.get("error") for one in result][2] is None


def test_halving_stops_the_worst_at_each_rung_and_they_can_go_on_later(tmp_path):
    project = SweepProject(tmp_path / "halved", **HALVING)
    work = project.work()
    jobs = worked(work, made_up(by_rate))
    assert [until for _, until in jobs] == [1, 1, 1, 1, 2, 2, None]
    stopped = {"blobs-lr1e-7": 1, "blobs-lr1e-6": 1, "blobs-lr0.003": 2}
    assert work.halved.stopped == stopped
    assert work.result()["epochs"] == {"distinct": 16, "sum": 16, "computed": 8}
    assert [one["stopped_after"] for one in work.result()["runs"]] == [1, None, 1, 2]
    assert work.ranked[:2] == ["blobs-lr0.01", "blobs-lr0.003"]
    again = project.work()
    assert worked(again, flat) == [("blobs-lr0.01", None)]  # nothing is left but to deliver it
    project.sweep.write_text(project.sweep.read_text().partition("halving")[0])
    changed = project.work()
    worked(changed, made_up(by_rate))
    assert changed.result()["epochs"] == {"distinct": 16, "sum": 16, "computed": 8}


def test_a_run_that_is_to_go_so_far_has_the_stages_of_these_epochs(branches):
    view = branches.work().tree.runs["blobs-final0"].view
    run = Run(SimpleNamespace(run=view), plan=None)
    every = [stage.label for stage in run.stages()]
    assert every == [stage.label for stage in view.stages]
    run.until = 2
    assert [stage.label for stage in run.stages()] == every[:5]  # initialise, and two epochs


def test_an_interrupted_sweep_goes_on_where_it_was_and_decides_as_before(tmp_path):
    unbroken, broken = (SweepProject(tmp_path / name, **HALVING) for name in ("one", "other"))
    work = unbroken.work()
    worked(work, made_up(by_rate))
    for most in (1, 1, 1, 2, 9):
        last = broken.work()
        worked(last, made_up(by_rate), most=most)
    assert last.result()["runs"] == work.result()["runs"]


def test_a_run_that_was_interrupted_alone_is_left_and_the_others_go_on(branches):
    work = branches.work()
    first = work.next_job()
    work.ended(first.name, failure=Failure("cancelled", 75, interrupted=True))
    assert work.next_job().name == "blobs-final0.1"
    assert work.states[first.name] == "interrupted"


def test_where_the_store_is_away_no_further_run_begins(branches):
    work = branches.work()
    flat(work, work.next_job())
    work.halting = "the store is away"
    assert work.next_job() is None
