"""What a sweep costs: from the seconds of like stages, and not known where there are none."""

from support.runs.sweeps import KNOWN, SweepProject, made_up, worked

from epochal.tasks.runs.run_plans import record_plan
from epochal.tasks.sweeps.cost import cost_of

VARY = {"schedule.final": [0.0, 0.5]}
timed = made_up(lambda *_: 0.5, seconds=3.0)


def test_nothing_is_known_of_what_was_never_timed(tmp_path):
    cost = cost_of(SweepProject(tmp_path / "new", vary=VARY, run=KNOWN).work().tree)
    assert (cost.epochs, cost.unknown, cost.known_seconds) == (4, 4, None)


def test_what_is_left_costs_what_like_stages_have_taken(tmp_path):
    project = SweepProject(tmp_path / "half", vary=VARY, run=KNOWN)
    work = project.work()
    worked(work, timed, most=1)
    cost = cost_of(project.work().tree)
    assert (cost.epochs, cost.unknown, cost.timed) == (1, 0, 3)
    assert cost.known_seconds == 6.0  # the last epoch of the other run, and its validation
    worked(work, timed)
    assert cost_of(work.tree).known_seconds == 0


def test_other_runs_of_the_store_are_looked_at_and_another_model_is_not_like_theirs(tmp_path):
    project = SweepProject(tmp_path / "before", vary=VARY, run=KNOWN)
    before = project.work()
    worked(before, timed, most=1)
    run = before.tree.runs["blobs-final0"]
    config = run.view.config.model_copy(update={"name": "before"})
    record_plan(before.tree.stage_store.store, config, run.run_inputs, run.view.stages)
    cost = cost_of(project.work(optimizer__args__lr=0.5).tree)
    assert (cost.epochs, cost.unknown, cost.timed) == (4, 0, 3)
    assert cost.known_seconds == 3.0 * 8  # four epochs, four validations; the weights are there
    wide = cost_of(project.work(model__args__width=64).tree)
    assert (wide.epochs, wide.unknown) == (4, 4)
