"""Background processes: told apart from all others, found again, stopped with what they started."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.runs.machine import wait_for

from epochal.data.errors import InputError
from epochal.flows.servers.home import NoteDamagedError, ServerHome
from epochal.flows.servers.processes import (
    MARKER,
    find_or_start,
    is_alive,
    start_detached,
    start_mark,
    stop,
    surviving,
)

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
# Starts one that sleeps, and sleeps as well; says so when the other one is there.
STARTS_ANOTHER = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.fixture
def home(tmp_path):
    home = ServerHome(tmp_path)
    yield home
    for record in surviving(home).values():
        stop(record, home=home, grace_s=0)


def started(home, command=SLEEPS, *, name="prefect"):
    return start_detached(command, name=name, home=home, port=4321, environment=os.environ)


def test_a_process_is_alive_until_it_is_stopped_and_again_there_is_nothing_to_stop(home):
    record = started(home)
    assert is_alive(record)
    wait_for(lambda: surviving(home) == {"prefect": record})  # it has no environment at first
    assert stop(record, home=home)
    assert not is_alive(record)
    assert surviving(home) == {}
    assert not stop(record, home=home)


def test_one_that_will_not_hear_is_killed(home):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', "
    record = started(home, [sys.executable, "-c", f"{deaf}flush=True); time.sleep(600)"])
    wait_for(lambda: "deaf" in Path(record.log).read_text())
    assert stop(record, home=home, grace_s=0.1)
    assert not is_alive(record)


COMMITS = """
import pathlib, signal, sys, time

def commit(*_):
    time.sleep(0.3)  # a commit takes its time: who is killed meanwhile has committed nothing
    pathlib.Path(sys.argv[1]).write_text("committed")
    sys.exit(75)

signal.signal(signal.SIGTERM, commit)
print("at work", flush=True)
signal.pause()
"""
ENDS_ITS_RUNS = """
import signal, subprocess, sys
run = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
signal.signal(signal.SIGTERM, lambda *_: (run.kill(), sys.exit(0)))
while True:
    signal.pause()
"""


def test_what_a_worker_runs_has_committed_before_the_worker_ends_it(home, tmp_path):
    commit = tmp_path / "commit"
    record = started(
        home, [sys.executable, "-c", ENDS_ITS_RUNS, COMMITS, str(commit)], name="worker"
    )
    wait_for(lambda: "at work" in Path(record.log).read_text())
    assert stop(record, home=home, started_first=True)
    assert commit.read_text() == "committed"
    assert surviving(home) == {}


def test_what_a_killed_server_has_started_is_still_found_and_stopped(home):
    record = started(home, [sys.executable, "-c", STARTS_ANOTHER])
    child = int(wait_for(lambda: Path(record.log).read_text()))
    os.kill(record.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(record))
    assert start_mark(child) is not None
    assert stop(record, home=home)
    assert start_mark(child) is None


def test_a_pid_that_another_process_has_now_is_not_signalled(home):
    record = started(home)
    stop(record, home=home)
    other = subprocess.Popen(SLEEPS)
    while start_mark(other.pid) == record.started:  # in the same hundredth of a second
        other.kill()
        other.wait()
        other = subprocess.Popen(SLEEPS)
    try:
        recycled = record.model_copy(update={"pid": other.pid})
        assert not is_alive(recycled)
        assert not stop(recycled, home=home, grace_s=0)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("value", ["garbage", "[]", "{}", json.dumps({"name": 1, "home": "/"})])
def test_a_foreign_variable_of_the_markers_name_is_ignored(home, value):
    other = subprocess.Popen(SLEEPS, env={**os.environ, MARKER: value}, start_new_session=True)
    try:
        wait_for(lambda: MARKER in psutil.Process(other.pid).environ())
        assert surviving(home) == {}
    finally:
        other.kill()
        other.wait()


def test_the_mark_of_a_process_that_has_ended_is_none():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    wait_for(lambda: start_mark(ended.pid) is None)  # not yet reaped
    ended.wait()
    assert start_mark(ended.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_mark_is_the_boot_and_the_clock_ticks_that_notes_and_flow_runs_already_hold():
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert start_mark(os.getpid()) == f"{boot}/{ticks}"


def test_a_server_that_runs_is_found_on_its_port_only(home):
    def find(port):
        return find_or_start("prefect", home=home, port=port, start=lambda: started(home))

    record, was_started = find(None)
    assert was_started
    assert find(None) == find(record.port) == (record, False)
    with pytest.raises(InputError, match="already runs at"):
        find(record.port + 1)


def test_a_server_that_is_not_in_the_note_is_stopped_before_another_starts(home):
    forgotten = started(home)
    record, was_started = find_or_start(
        "prefect", home=home, port=None, start=lambda: started(home)
    )
    assert was_started
    assert not is_alive(forgotten)
    assert home.read() == {"prefect": record}


def test_a_note_of_an_earlier_version_is_read(home):
    server = {
        "name": "mlflow", "pid": 77, "started": "boot/1", "port": 5000, "log": "/log",
        "stops_when_idle": False, "serves": "sqlite:////mlflow.db",
    }  # fmt: skip
    home.note.write_text(json.dumps({"servers": {"mlflow": server}}))
    (record,) = home.read().values()
    assert record.model_dump() == server


@pytest.mark.parametrize(
    "changed", [{"pid": "7"}, {"pid": 1}, {"port": None}, {"stops_when_idle": 1}, {"name": []}]
)
def test_a_note_that_says_something_else_is_damaged(home, changed):
    home.write({"prefect": started(home)})
    note = json.loads(home.note.read_text())
    note["servers"]["prefect"] |= changed
    home.note.write_text(json.dumps(note))
    with pytest.raises(NoteDamagedError):
        home.read()


def test_the_lock_is_held_by_one_process_and_ends_with_it(home):
    holds = (
        "import sys, time; from pathlib import Path;"
        "from epochal.flows.servers import ServerHome\n"
        "with ServerHome(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", holds, str(home.folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (home.folder / "epochal.lock").open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    holder.kill()
    holder.communicate()
    with home.lock():
        pass
