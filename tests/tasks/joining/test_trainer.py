"""Processes that an engine has started and that join the run: the bytes of one process."""

import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from typing import ClassVar

import pytest
from support.runs.bare_run import BareRun
from support.runs.commits_given import once_stored
from support.runs.project import environment
from support.runs.proof_project import proof_project
from support.trainers.forked_trainer import fork_trainers
from support.trainers.misbehaving import misbehaving_project, plan

from epochal.data.errors import ConfigError, TrainingFailed, Unavailable
from epochal.tasks.joining import relay
from epochal.tasks.joining import trainer as joining
from epochal.tasks.joining.connection import TOKEN

SHARED = {
    "epochs": 3,
    "gradients": {"accumulate": 4, "shards": 4},
    "batches": {"kind": "fixed"},
    "loader": {"batch_size": 4},
    "launch": {"kind": "elastic", "processes": 2},
}


def two_machines():
    """What a run of two machines is given; a port that nobody else has."""
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    return {"launch__nodes": 2, "launch__address": f"127.0.0.2:{port}"}


class ForkedEngine:
    """Starts processes that join as torch's agent does, forked from this one: in 0.1 s, not 6 s.

    elsewhere: the places of those that see no file of the run's process, as on another machine.
    lost: of those that are not started again.
    """

    elsewhere = frozenset()
    lost = frozenset()
    made: ClassVar = []

    def __init__(self, module, given, *, token):
        self.given, self.token = given, token
        self.woken = os.pipe()
        self.pids, self.ending = {}, False
        self.made.append(self)
        self.threads = [
            threading.Thread(target=self.keep, args=(place,))
            for place in {*range(given["workers"]), *self.elsewhere}
        ]
        for thread in self.threads:
            thread.start()

    def keep(self, place):
        while not self.ending:
            self.pids[place] = pid = os.fork()
            if pid == 0:
                self.join(place)
            if os.waitpid(pid, 0)[1] == 0 or place in self.lost:
                return

    def join(self, place):
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for one in range(3):
                os.dup2(null, one)
            for one in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2}:  # noqa: PTH208
                with contextlib.suppress(OSError):  # that of the listing
                    os.close(one)
            os.environ.update({TOKEN: self.token, "LOCAL_RANK": str(place)})
            if place in self.elsewhere:
                relay.opened = lambda _: None
            relay.main({**self.given, "mark": os.devnull})
        except BaseException:  # noqa: BLE001 - a child must end here
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)

    def fileno(self):
        return self.woken[0]

    def poll(self):
        return None

    def end(self):
        self.ending = True
        for thread in self.threads:
            thread.join(20)
        for place, thread in enumerate(self.threads):
            if thread.is_alive():
                os.kill(self.pids[place], signal.SIGKILL)
                thread.join()
        for end in self.woken:
            os.close(end)


@pytest.fixture(scope="module")
def forking(tmp_path_factory):
    with (
        environment(HOME=str(tmp_path_factory.mktemp("home"))),
        pytest.MonkeyPatch.context() as patch,
    ):
        fork_trainers(patch, proof_project(tmp_path_factory.mktemp("warm") / "project"))
        patch.setattr(joining, "Engine", ForkedEngine)
        yield


@pytest.fixture
def elsewhere(forking, monkeypatch):
    monkeypatch.setattr(ForkedEngine, "elsewhere", frozenset({1}))


def shared_project(folder, **changes):
    return proof_project(folder, **{**SHARED, **changes})


@contextlib.contextmanager
def open_run(project, **sets):
    run = BareRun(project.config, launch__kind="elastic", **sets)
    try:
        yield run
    finally:
        run.session.trainer.close()


def made(run):
    """All that a run makes, and what a tracker gets of it."""
    run()
    return run.digests, {key: record.values for key, record in run.view.records.items()}


@pytest.fixture(scope="module")
def alone(forking, tmp_path_factory):
    project = shared_project(tmp_path_factory.mktemp("alone") / "project")
    run = BareRun(project.config, launch__kind="local", launch__processes=1)
    found = made(run)
    run.run.close()
    return found


def trainer_of(place):
    """The trainer of the newest engine's process."""
    pid = ForkedEngine.made[-1].pids[place]
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
        first = file.read().split()
    for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
        with open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123
            first += file.read().split()
    return int(first[0])


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_processes_that_join_make_the_bytes_of_one(processes, alone, forking, tmp_path):
    with open_run(shared_project(tmp_path / "project"), launch__processes=processes) as run:
        assert made(run) == alone


def test_one_on_another_machine_gets_what_it_reads_by_its_connection(alone, elsewhere, tmp_path):
    project = shared_project(tmp_path / "project")
    with (
        environment(**{TOKEN: "of this run"}),
        open_run(project, checkpoint__every_updates=1, **two_machines()) as run,
    ):
        trainer, asked = run.session.trainer, []
        answer = trainer.answer

        def answered(question, given, data):
            asked.append(question)
            return answer(question, given, data)

        trainer.answer = answered
        once_stored(run, lambda: os.kill(trainer_of(1), signal.SIGKILL), number=2)
        assert made(run) == alone
        assert asked.count("piece") > 1
        (text,) = [text for text in run.notices if "start again" in text]
        assert "rank 1 on" in text
        assert "SIGKILL" in text


def test_a_machine_more_takes_the_place_of_one_that_is_lost(alone, forking, monkeypatch, tmp_path):
    monkeypatch.setattr(ForkedEngine, "elsewhere", frozenset({1, 2}))
    monkeypatch.setattr(ForkedEngine, "lost", frozenset({1}))
    project = shared_project(tmp_path / "project")
    with (
        environment(**{TOKEN: "of this run"}),
        open_run(project, checkpoint__every_updates=1, **two_machines()) as run,
    ):
        once_stored(run, lambda: os.kill(ForkedEngine.made[-1].pids[1], signal.SIGKILL), number=2)
        assert made(run) == alone
        assert {seat.joined.place for seat in run.session.trainer._listener.seats} == {0, 2}


def test_processes_read_no_file_of_the_run_that_they_were_not_told_of(forking, tmp_path):
    with open_run(shared_project(tmp_path / "project")) as run:
        for question in ("file", "piece"):
            with pytest.raises(Unavailable, match="no file that the run has told"):
                run.session.trainer.answer(question, {"path": "/etc/passwd", "offset": 0}, None)


def test_a_killed_trainer_is_started_again_in_the_same_seat(alone, forking, tmp_path):
    with open_run(shared_project(tmp_path / "project"), checkpoint__every_updates=1) as run:
        pids = dict(ForkedEngine.made[-1].pids)
        once_stored(run, lambda: os.kill(trainer_of(0), signal.SIGKILL), number=2)
        assert made(run) == alone
        assert ForkedEngine.made[-1].pids == pids


def test_a_killed_process_that_holds_a_seat_is_replaced(alone, forking, tmp_path):
    with open_run(shared_project(tmp_path / "project"), checkpoint__every_updates=1) as run:
        once_stored(run, lambda: os.kill(ForkedEngine.made[-1].pids[1], signal.SIGKILL), number=2)
        assert made(run) == alone
        (text,) = [text for text in run.notices if "start again" in text]
        assert "rank 1: " in text
        assert "gone, or the way to it" in text


@pytest.mark.slow
def test_signals_that_a_scheduler_sends_to_a_whole_job_leave_the_end_to_the_run(
    alone, forking, tmp_path
):
    with open_run(shared_project(tmp_path / "project"), checkpoint__every_updates=1) as run:

        def warn():
            for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
                os.kill(ForkedEngine.made[-1].pids[1], number)

        once_stored(run, warn, number=2)
        assert made(run) == alone
        assert not [text for text in run.notices if "start again" in text]


def test_the_error_that_is_told_is_that_of_the_users_code(forking, tmp_path):
    project = misbehaving_project(
        tmp_path / "project", gradients={"accumulate": 2, "shards": 2}, loader={"batch_size": 4},
        launch={"kind": "elastic", "processes": 2},
    )  # fmt: skip
    with open_run(project) as run:
        plan(project, "value", "model", 20)
        with pytest.raises(TrainingFailed, match="no good") as error:
            run()
        assert "misbehaving.py" in error.value.trace


@pytest.mark.slow
def test_where_code_has_ended_a_trainer_its_place_is_told(forking, tmp_path):
    project = misbehaving_project(
        tmp_path / "project", gradients={"accumulate": 2, "shards": 2}, loader={"batch_size": 4},
        launch={"kind": "elastic", "processes": 2, "max_restarts": 0},
    )  # fmt: skip
    with open_run(project) as run:
        plan(project, "_exit-7", "model", 20)
        with pytest.raises(TrainingFailed, match=r"exit code 7.*misbehaving.py"):
            run()


@pytest.mark.slow
def test_what_a_process_prints_is_printed_here_behind_its_rank(forking, tmp_path, capfd):
    project = shared_project(tmp_path / "project")
    text = (project.folder / "model.py").read_text()
    (project.folder / "model.py").write_text(f"{text}\nprint('one line')\n")
    with open_run(project) as run:
        made(run)
    assert {"rank 0: one line", "rank 1: one line"} <= set(capfd.readouterr().out.splitlines())


def test_where_a_trainer_stands_is_told_by_its_machine(forking, tmp_path):
    with open_run(shared_project(tmp_path / "project"), launch__processes=2) as run:
        run.session.trainer.tell_silence()
        assert "rank 0: It is in no file of yours" in run.notices[-1]


def test_a_run_whose_processes_do_not_come_ends_and_says_how_many_there_are(
    forking, tmp_path, monkeypatch
):
    project, now_s = shared_project(tmp_path / "project"), joining.now_s
    with (
        environment(**{TOKEN: "of this run"}),
        open_run(project, **two_machines(), launch__silence_seconds=0.1) as run,
    ):

        def told():
            return sum("epochal join 127.0.0.2:" in text for text in run.notices)

        # An hour passes whenever it is said who is missing: the one of this machine may come late.
        monkeypatch.setattr(joining, "now_s", lambda: now_s() + 3600 * told())
        with pytest.raises(Unavailable, match="1 of 2 processes have joined"):
            run()
        assert told()


def test_several_machines_need_a_secret_that_the_user_gives(tmp_path, home):
    project = shared_project(tmp_path / "project")
    with pytest.raises(ConfigError, match=r"set EPOCHAL_TOKEN .* `openssl rand -hex 32`"):
        BareRun(project.config, launch__kind="elastic", **two_machines())


@pytest.mark.skipif("ray" in sys.modules, reason="ray is installed")
def test_ray_that_is_not_installed_is_told_before_anything_starts(tmp_path, home, monkeypatch):
    monkeypatch.setattr(joining.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'epochal\[ray\]'"):
        BareRun(shared_project(tmp_path / "project").config, launch__kind="ray")
