"""Workers of the loader: none outlives its reader, whatever ends it."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from support.numbers.drawing_data import COUNT, Drawing, Slow, batches, few_processors, plain
from support.runs.machine import wait_for

from epochal.data.errors import TrainingFailed
from epochal.data.loading import workers as workers_module
from epochal.data.loading.workers import GRACE_S


@few_processors
@pytest.mark.parametrize("ending", ["close", "drop", "error"])
def test_an_abandoned_iterator_ends_its_workers(ending):
    found = batches(Drawing(), workers=3)
    next(found)
    assert len(multiprocessing.active_children()) == 3
    if ending == "close":
        found.close()
    elif ending == "drop":
        del found
    else:
        with pytest.raises(KeyError):
            found.throw(KeyError("in the training step"))
    assert multiprocessing.active_children() == []
    assert not workers_module._running


def _fail_and_keep_the_error():
    found = batches(Drawing(), workers=2)
    next(found)
    _kept.append(found)  # as the traceback of an error keeps the frames of a training step


_kept = []


@few_processors
def test_workers_end_with_a_reader_that_multiprocessing_started():
    reader = multiprocessing.get_context("spawn").Process(target=_fail_and_keep_the_error)
    reader.start()
    reader.join(timeout=60)
    ended = reader.exitcode
    reader.kill()
    reader.join()
    assert ended == 0


@few_processors
def test_a_worker_in_a_slow_item_is_killed_after_a_short_grace():
    found = batches(Slow(), workers=2, batch_size=COUNT - 1)
    begun = time.monotonic()
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begun < GRACE_S + 8


def _interrupt(*_):
    raise KeyboardInterrupt


@few_processors
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process ignores")
def test_a_signal_to_the_whole_group_does_not_end_the_workers():
    found = batches(Drawing(200), workers=2)
    next(found)
    for process in multiprocessing.active_children():
        wait_for(partial(has_begun, process.pid))
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    expected = [plain(batch) for batch in batches(Drawing(200))]
    assert [plain(batch) for batch in found] == expected[1:]


@few_processors
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # torch's, of the worker
def test_a_killed_worker_is_an_error_that_says_what_to_do():
    found = batches(Drawing(400), workers=2)
    next(found)
    # Torch raises as soon as the signal of the death arrives, wherever this process then is.
    with pytest.raises((TrainingFailed, RuntimeError), match="worker"):  # noqa: PT012
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        list(found)
    found.close()
    assert multiprocessing.active_children() == []


SCRIPT = """
import sys, time
import numpy as np
from support.numbers.drawing_data import Drawing, Slow, batches
found = batches({dataset}, workers=2, batch_size=11)
{use}
"""


def start(dataset, use):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(dataset=dataset, use=use)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def children_of(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_begun(pid):
    """Whether a worker ignores the signals that end its command."""
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(re.search(r"SigIgn:\s+([0-9a-f]+)", status)[1], 16)
    return all(ignored >> (number - 1) & 1 for number in (signal.SIGTERM, signal.SIGINT))


def gone(pids, *, within_s):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def _is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of a death")
def test_workers_die_with_a_process_that_is_killed():
    process = start("Slow()", "print('ready', flush=True); next(found)")
    try:
        assert process.stdout.readline() == "ready\n"
        children = wait_for(lambda: len(found := children_of(process.pid)) == 2 and found)
        wait_for(lambda: all(has_begun(pid) for pid in children))
    finally:
        process.kill()
        process.communicate()
    assert gone(children, within_s=5)


def test_a_process_that_ends_with_an_open_iterator_does_not_hang():
    process = start("Drawing()", "import builtins; builtins.kept = found; next(found)")
    process.communicate(timeout=200)
    assert process.returncode == 0
