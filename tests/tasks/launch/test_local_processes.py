"""Several trainer processes that share each update: the bytes of one, whatever happens to them."""

import os
import signal

import pytest
from support.runs.bare_run import BareRun
from support.runs.commits_given import at_commit, once_stored
from support.runs.project import environment
from support.runs.proof_project import proof_project
from support.trainers.forked_trainer import fork_trainers
from support.trainers.misbehaving import misbehaving_project, plan

from epochal.data.errors import ConfigError, Interrupted, NonFinite, TrainingFailed
from epochal.tasks.config.load import load_config

SHARED = {
    "gradients": {"accumulate": 8, "shards": 8, "clip_norm": 1.0, "per_group": True},
    "batches": {"kind": "fixed"},
    "loader": {"batch_size": 2},
    "launch": {"kind": "local"},
}
# 38 samples in micro-batches of 2, eight to an update: 19 of them, in updates of 8, 8 and 3


@pytest.fixture(scope="module")
def forking(tmp_path_factory):
    with (
        environment(HOME=str(tmp_path_factory.mktemp("home"))),
        pytest.MonkeyPatch.context() as patch,
    ):
        fork_trainers(patch, proof_project(tmp_path_factory.mktemp("warm") / "project"))
        yield


def shared_project(folder, **changes):
    return proof_project(folder, **{**SHARED, **changes})


def run(project, processes, **sets):
    return BareRun(project.config, launch__kind="local", launch__processes=processes, **sets)


def made(run):
    """All that a run makes, and what a tracker gets of it."""
    try:
        run()
    finally:
        run.session.trainer.close()
    values = {key: record.values for key, record in run.view.records.items()}
    return run.digests, values


@pytest.fixture(scope="module")
def alone(forking, tmp_path_factory):
    return made(run(shared_project(tmp_path_factory.mktemp("alone") / "project"), 1))


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_processes_is_no_part_of_what_is_made(processes, alone, forking, tmp_path):
    assert made(run(shared_project(tmp_path / "project"), processes)) == alone


OWN = """
    import torch

    class Mean:
        def __init__(self):  # added up in float32: the order of batches is part of its bits
            self.total = torch.zeros(())

        def update(self, outputs, target):
            self.total = self.total + outputs.exp().sum()

        def compute(self):
            return {"outputs": self.total, "draw": torch.rand(())}
"""


@pytest.mark.slow
def test_workers_scoring_and_metrics_of_ones_own_see_what_one_process_sees(forking, tmp_path):
    sets = {
        "epochs": 2,
        "loader": {"batch_size": 2, "workers": 1},
        "sampling": {"policy": "easy_skip", "confidence": 0.6, "scoring": {"every": 1}},
        "metrics": {"validation": ["accuracy", {"name": "mean", "target": "own:Mean"}]},
        "averaging": None,
        "validation": {"every_updates": 1},
    }
    found = []
    for processes in (1, 3):
        project = shared_project(tmp_path / str(processes), **sets)
        project.write("own.py", OWN)
        found.append(made(run(project, processes)))
    assert found[0] == found[1]
    assert any(stage == "score" for stage, _, _ in found[0][0])


def test_an_update_that_is_not_finite_is_told_with_the_samples_of_all(forking, tmp_path):
    told = []
    for processes in (1, 2):
        project = shared_project(
            tmp_path / str(processes),
            gradients={"accumulate": 8, "shards": 8},
            precision={"dtype": "float32"},
            optimizer={"target": "torch.optim:SGD", "args": {"lr": 1e38}},
        )
        with pytest.raises(NonFinite) as caught:
            made(run(project, processes))
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_a_signal_while_several_measure_is_obeyed_and_the_epoch_goes_on(alone, forking, tmp_path):
    project = shared_project(tmp_path / "project")
    one = run(project, 2, checkpoint__every_updates=1)
    at_commit(one, lambda: os.kill(os.getpid(), signal.SIGTERM), number=2)
    with pytest.raises(Interrupted):
        made(one)
    assert made(run(project, 1)) == alone


def test_what_several_have_made_is_cached_for_one(forking, tmp_path):
    project = shared_project(tmp_path / "project", epochs=2)
    made(run(project, 2))
    assert run(project, 1).view.is_whole


def kill(run, victim):
    """Kills that rank."""
    os.kill(run.session.trainer.pids[victim], signal.SIGKILL)


def test_an_epoch_goes_on_with_any_number_of_processes(forking, tmp_path):
    """96 samples are six updates: three times one of them is the last with so many processes."""
    images = {"target": "images:Images", "args": {"split": "train", "size": 96}}
    sets = {"train_data": images, "epochs": 1, "schedule": {"kind": "constant"}, "averaging": None}
    sets |= {"early_stopping": None, "ema": {"decay": 0.9}, "sampling": {"policy": "importance"}}
    alone = made(run(shared_project(tmp_path / "alone", **sets), 1))
    project, resumed = shared_project(tmp_path / "project", **sets), []
    for processes in (4, 1, 3):
        one = run(project, processes, checkpoint__every_updates=1)
        at_commit(one, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            made(one)
        resumed.append(len(list(project.store.glob("stages/*/record.json"))))
    last = run(project, 2)
    assert made(last) == alone
    assert resumed == [1, 1, 1]  # the initial weights alone: all three were in one epoch
    assert last.resumed[("train", 0)] >= 24


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_where_one_is_killed_all_start_again_from_the_last_commit(victim, alone, forking, tmp_path):
    one = run(shared_project(tmp_path / "project"), 2, checkpoint__every_updates=1)
    once_stored(one, lambda: kill(one, victim), number=3)
    assert made(one) == alone
    (text,) = [text for text in one.notices if "start again" in text]
    assert f"rank {victim}" in text
    assert "SIGKILL" in text


def test_a_kill_too_many_ends_the_run_and_the_next_goes_on(alone, forking, tmp_path):
    project = shared_project(tmp_path / "project")
    one = run(project, 2, checkpoint__every_updates=1, launch__max_restarts=0)
    once_stored(one, lambda: kill(one, 1))
    with pytest.raises(TrainingFailed, match="rank 1: train"):
        made(one)
    assert made(run(project, 1)) == alone


def test_code_that_has_changed_since_is_not_gone_on_with(forking, tmp_path):
    project = shared_project(tmp_path / "project")
    one = run(project, 2, checkpoint__every_updates=1)

    def change_and_kill():
        model = project.folder / "model.py"
        model.write_text(model.read_text().replace("Dropout(0.2)", "Dropout(0.3)"))
        kill(one, 1)

    once_stored(one, change_and_kill)
    with pytest.raises(TrainingFailed, match="code or data of the run have changed since it began"):
        made(one)


def test_one_that_hangs_is_named_and_the_others_wait_for_it(alone, forking, tmp_path):
    sets = {"launch__silence_seconds": 0.5, "checkpoint__every_updates": 1}
    one = run(shared_project(tmp_path / "project"), 2, **sets)
    pid = one.session.trainer.pids[1]
    at_commit(one, lambda: os.kill(pid, signal.SIGSTOP))
    notice = one.session.reporter.notice

    def go_on(text):
        notice(text)
        if "no sign of the trainer" in text:
            os.kill(pid, signal.SIGCONT)

    one.session.reporter.notice = go_on
    assert made(one) == alone
    text = next(text for text in one.notices if "does not answer" in text)
    assert "no sign of the trainer for 0.5 s" in text
    assert "rank 0: It is in no file of yours" in text
    assert f"rank 1: It does not answer: was it stopped? `kill -CONT {pid}`" in text


@pytest.mark.parametrize("place", ["model", "item", "update"])
def test_the_error_that_is_told_is_that_of_the_users_code(place, forking, tmp_path):
    project = misbehaving_project(
        tmp_path / "project", gradients={"accumulate": 2, "shards": 2}, loader={"batch_size": 4}
    )
    one = run(project, 2)
    plan(project, "raise", place, 20)
    with pytest.raises(TrainingFailed, match="raise"):
        one()
    one.session.trainer.close()


def test_more_processes_than_shards_are_refused(tmp_path):
    project = shared_project(tmp_path / "project")
    with pytest.raises(ConfigError, match=r"give gradients.shards: 16, which is part"):
        load_config(project.config, overrides=["launch.processes=9"])
    with pytest.raises(ConfigError, match="launch.kind: local"):
        load_config(project.config, overrides=["launch.processes=2", "launch.kind=inline"])
