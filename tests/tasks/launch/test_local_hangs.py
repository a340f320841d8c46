"""A trainer that hangs: it is said where, and a signal to the flow's process ends it in time."""

import os
import signal
import threading
from pathlib import Path

import pytest
from support.runs.command import alive, children
from support.runs.machine import wait_for
from support.trainers.forked_trainer import fork_trainers
from support.trainers.misbehaving import local_run, misbehaving_project, pid_of, plan, sets_of

from epochal.data import errors
from epochal.tasks.launch import trainer_process

LINES = {"sleep": "time.sleep(3600)", "held": "ctypes.PyDLL(None).sem_wait("}


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    fork_trainers(monkeypatch, misbehaving_project(tmp_path / "warm"))
    return misbehaving_project(tmp_path / "project")


class Hanging:
    """A run that hangs in the fifth update; what is done to it then is done in a thread."""

    def __init__(self, project, kind, place, **sets):
        self.asleep = project.folder / "asleep.txt"
        self.run = local_run(project.config, **sets_of(place), **sets)
        plan(project, kind, place, 7 if place == "workers" else 9)
        self.family = []

    def __call__(self, then):
        """Runs it; calls `then` once it hangs."""
        watcher = threading.Thread(target=self._watch, args=(then,))
        watcher.start()
        try:
            self.run()
        finally:
            watcher.join()
            self.run.run.close()
            wait_for(lambda: not any(map(alive, self.family)))

    def _watch(self, then):
        wait_for(self.asleep.exists)
        pid = pid_of(self.run)
        self.family = [pid, *children(pid)]
        then()

    def said(self, *texts):
        """The notice that has them all, once it has come."""
        return wait_for(
            lambda: next((one for one in self.run.notices if has_all(one, texts)), None)
        )


def has_all(notice, texts):
    return all(text in notice for text in texts)


def own_signal(number):
    os.kill(os.getpid(), number)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def line_of(project, kind):
    text = (project.folder / "misbehaving.py").read_text()
    number = text[: text.index(LINES[kind])].count("\n") + 1
    return f"{project.folder}/misbehaving.py, line {number}"


@pytest.mark.parametrize(
    ("kind", "place"),
    [("sleep", "model"), ("held", "model"), ("stop", "model"), ("sleep", "workers")],
)
def test_where_it_hangs_is_said_and_a_signal_ends_it_within_the_grace(kind, place, project):
    # Starting a loader's processes may take a busy machine longer than half a second.
    silence_s = 3 if place == "workers" else 0.5
    hanging = Hanging(
        project, kind, place, launch__silence_seconds=silence_s, checkpoint__grace_seconds=0.5
    )
    if kind == "stop":
        where = ["It does not answer: was it stopped?"]
    else:
        where = [line_of(project, kind), f'  File "{project.folder}/misbehaving.py", line ']

    def then():
        silence = f"no sign of the trainer for {silence_s} s (launch.silence_seconds)"
        hanging.said(silence, *where)
        own_signal(signal.SIGTERM)

    with pytest.raises(errors.Interrupted) as caught:
        hanging(then)
    assert caught.value.exit_code == 75
    assert hanging.said("not put its work down within 0.5 s (checkpoint.grace_seconds)", *where)


def test_ctrl_z_stops_the_trainer_too_until_this_process_goes_on(project, monkeypatch):
    hanging = Hanging(project, "sleep", "model")
    states = []

    def stopped():  # the tests' process does not stop
        states.append(wait_for(lambda: state_of(pid_of(hanging.run)) == "T" and "T"))

    monkeypatch.setattr(trainer_process, "stop_this_process", stopped)

    def then():
        own_signal(signal.SIGTSTP)
        states.append(wait_for(lambda: states and state_of(pid_of(hanging.run)) == "S" and "S"))
        own_signal(signal.SIGINT)
        wait_for(lambda: hanging.run.session.interruption.came)
        own_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hanging(then)
    assert states == ["T", "S"]
    assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL


def test_a_second_signal_ends_it_at_once(project):
    hanging = Hanging(project, "sleep", "model", checkpoint__grace_seconds=3600)

    def then():
        own_signal(signal.SIGINT)
        wait_for(lambda: hanging.run.session.interruption.came)
        own_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        hanging(then)


def test_a_handler_of_the_users_that_ends_the_process_makes_no_failure_of_an_interruption(project):
    hanging = Hanging(project, "own-handler", "model")

    def then():
        own_signal(signal.SIGTERM)
        wait_for(lambda: hanging.run.session.interruption.came)
        os.kill(pid_of(hanging.run), signal.SIGTERM)

    with pytest.raises(errors.Interrupted):
        hanging(then)
    assert "SystemExit: 0" in hanging.said("train · epoch 0: ")
