"""Workers of the loader: none outlives its reader, whatever ends it."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from functools import partial
from multiprocessing import resource_sharer
from pathlib import Path

import numpy as np
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


class Opened:
    """Opens its file where it is made: a buffered one, a descriptor, or an archive."""

    def __init__(self, folder, kind):
        self.rows = np.arange(COUNT * 64, dtype=np.int64).reshape(COUNT, 64)
        self.kind, path = kind, folder / "rows.bin"
        path.write_bytes(self.rows.tobytes())
        with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
            for row, numbers in enumerate(self.rows):
                archive.writestr(str(row), numbers.tobytes())
        opened = {
            "file": lambda: path.open("rb", buffering=512),
            "descriptor": lambda: os.open(path, os.O_RDONLY),
            "archive": lambda: zipfile.ZipFile(folder / "rows.zip"),
        }
        self.opened = opened[kind]()
        path.unlink()  # an open file needs no name

    def __len__(self):
        return COUNT

    def __getitem__(self, row):
        size = self.rows[row].nbytes
        if self.kind == "archive":
            data = self.opened.read(str(row))
        elif self.kind == "descriptor":
            os.lseek(self.opened, row * size, os.SEEK_SET)
            time.sleep(0.002)  # in which another worker would move the position
            data = os.read(self.opened, size)
        else:
            self.opened.seek(row * size)
            data = self.opened.read(size)
        return np.frombuffer(data, np.int64).copy(), row

    def close(self):
        if self.kind == "descriptor":
            os.close(self.opened)
        else:
            self.opened.close()


@few_processors
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
@pytest.mark.parametrize("kind", ["file", "descriptor", "archive"])
def test_a_file_that_was_open_before_the_fork_is_read_at_a_workers_own_positions(tmp_path, kind):
    with closing(Opened(tmp_path, kind)) as source:
        for _ in range(3):
            for batch in batches(source, workers=4, batch_size=2):
                numbers, rows = batch.data
                assert np.array_equal(numbers.numpy(), source.rows[rows.numpy()])


def test_a_reader_that_is_killed_while_it_takes_a_tensor_shows_no_trace(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))
    workers_module._end_without_a_word()
    file = (tmp_path / "file").open("w")
    try:
        for last in (False, True):  # the one thread serves one after the other
            descriptor = resource_sharer.DupFd(file.fileno())
            if not last:
                with socket.socket(socket.AF_UNIX) as reader:
                    reader.connect(resource_sharer._resource_sharer._address)
            else:
                os.close(descriptor.detach())
        assert shown == []
        error = ConnectionResetError()
        sys.excepthook(type(error), error, None)  # of any other thread
        assert [one[1] for one in shown] == [error]
    finally:
        resource_sharer.stop()
        file.close()
