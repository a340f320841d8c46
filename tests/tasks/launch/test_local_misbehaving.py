"""User code that ends, breaks or cripples the process that it runs in: it is told, and mended."""

import re

import pytest
from support.runs.command import alive, children
from support.runs.machine import wait_for
from support.trainers.forked_trainer import fork_trainers
from support.trainers.misbehaving import local_run, mend, misbehaving_project, pid_of, plan, sets_of

from epochal.data import errors
from epochal.data.traces import users_trace

SAID = {
    "exit": "SystemExit: 0",
    "exit-text": "SystemExit: enough of it",
    "_exit-0": "ended the trainer process with exit code 0",
    "_exit-7": "ended the trainer process with exit code 7",
    "segfault": "ended by SIGSEGV",
    "kill": "ended by SIGKILL.* where memory runs out",
    "abort": "ended by SIGABRT",
    "ctrl-c": "KeyboardInterrupt",
    "generator": "GeneratorExit",
    "odd": "misbehaving.Odd: odd",
    "recursion": "RecursionError: maximum recursion depth",
    "memory": "MemoryError",
    "file": "FileNotFoundError: .*'/nowhere/labels.txt'",
    "mute": "misbehaving.Mute: <exception str",
    "mute-file": "misbehaving.MuteFile: <exception str",
    "long": "ValueError: long long",
    "unmakeable": "misbehaving.Unmakeable: 1 and 2",
    "closed": "closed descriptors that are not its own",
}
CRASHES = ("_exit-0", "_exit-7", "segfault", "abort")
WITHOUT_A_PLACE = ("kill", "closed")
COUNT = {"item": 37, "workers": 7, "update": 2, "compute": 1}


def slow_ones(*values):
    return [pytest.param(one, marks=pytest.mark.slow) for one in values]


@pytest.fixture(autouse=True)
def forked(monkeypatch, tmp_path, home):
    fork_trainers(monkeypatch, misbehaving_project(tmp_path / "warm"))


@pytest.fixture
def project(tmp_path):
    return misbehaving_project(tmp_path / "project")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The digests of a run in which nothing goes wrong."""
    made = misbehaving_project(tmp_path_factory.mktemp("unbroken") / "project")
    run = local_run(made.config)()
    run.run.close()
    return run.digests


def failed(project, kind, place, count):
    """The error of a run in which that goes wrong at work."""
    run = local_run(project.config, **sets_of(place))
    pid = pid_of(run)
    plan(project, kind, place, count)
    with pytest.raises(errors.TrainingFailed) as caught:
        run()
    run.run.close()
    assert not alive(pid)
    return caught.value


@pytest.mark.parametrize("kind", SAID)
def test_whatever_ends_training_is_told_with_the_users_line(kind, project):
    error = failed(project, kind, "model", 9)
    assert error.exit_code == 3
    assert str(error).startswith("train · epoch 0: ")
    assert re.search(SAID[kind], str(error))
    if kind in WITHOUT_A_PLACE:
        return
    assert f"({project.folder}/misbehaving.py, line " in str(error)
    assert f'  File "{project.folder}/misbehaving.py", line ' in users_trace(error)
    assert len(users_trace(error)) < 30_000


@pytest.mark.parametrize("kind", ["segfault", *slow_ones("value", "kill", "closed")])
def test_the_run_goes_on_from_its_last_commit_and_ends_in_the_same_bytes(kind, project, unbroken):
    failed(project, kind, "model", 9)
    mend(project)
    again = local_run(project.config)()
    again.run.close()
    assert again.resumed
    assert again.digests == unbroken


@pytest.mark.parametrize("place", ["step", "loss", "item", "workers", "update", "compute"])
@pytest.mark.parametrize("kind", ["segfault", *slow_ones("ctrl-c", "_exit-0", "mute", "odd")])
def test_it_is_told_wherever_the_users_code_is_called(kind, place, project):
    error = failed(project, kind, place, COUNT.get(place, 9))
    if place == "workers" and kind in CRASHES:
        assert "a worker of the loader ended" in str(error)
    else:
        assert re.search(SAID[kind], str(error))
    assert f'  File "{project.folder}/misbehaving.py", line ' in users_trace(error)


@pytest.mark.parametrize("place", ["model", *slow_ones("item", "compute")])
@pytest.mark.parametrize("kind", ["segfault", "ctrl-c", *slow_ones("exit", "_exit-0", "mute")])
def test_before_the_start_it_is_a_mistake_of_the_input(kind, place, project):
    plan(project, kind, place)
    with pytest.raises(errors.InputError) as caught:
        local_run(project.config)
    assert re.search(SAID[kind], str(caught.value))
    assert f'  File "{project.folder}/misbehaving.py", line ' in users_trace(caught.value)
    assert not list(project.store.glob("stages/*/record.json"))


@pytest.mark.parametrize(
    "kind",
    ["fork", "fork-back", "handler", "chdir", "mute-output", "warnings", "path", "thread", "pool",
     "kept-pool", "terminated", "left", *slow_ones("spawned")],
)  # fmt: skip
def test_what_the_users_code_does_to_its_process_changes_no_byte(kind, project, unbroken):
    run = local_run(project.config)
    pid = pid_of(run)
    plan(project, kind, "item", 37)
    run()
    assert run.digests == unbroken
    left = children(pid)
    run.run.close()
    wait_for(lambda: not [one for one in (pid, *left) if alive(one)])


def test_a_fork_that_comes_back_from_an_item_of_a_worker_changes_no_byte(project, unbroken, capfd):
    run = local_run(project.config, loader__workers=2)
    plan(project, "fork-back", "item", 7)
    run()
    run.run.close()
    assert run.digests == unbroken
    assert "What os.fork() starts must end by os._exit()" in capfd.readouterr().err


def test_the_end_of_the_process_is_seen_though_a_child_of_it_holds_its_channel(project):
    run = local_run(project.config)
    plan(project, "fork-kill", "item", 37)
    with pytest.raises(errors.TrainingFailed, match="SIGKILL"):
        run()
    run.run.close()
