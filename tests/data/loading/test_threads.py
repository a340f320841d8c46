"""Threads of the loader: none outlives its iterator, whatever ends it, and none keeps a process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from support.numbers.drawing_data import Steady, batches, plain

from epochal.data.errors import TrainingFailed
from epochal.data.loading import threads as threads_module


def readers():
    return [one for one in threading.enumerate() if one.name.startswith("epochal-read")]


@pytest.mark.parametrize("ending", ["close", "drop", "error", "end"])
def test_an_abandoned_iterator_ends_its_threads(ending):
    found = batches(Steady(400), threads=3)
    next(found)
    assert len(readers()) == 3
    if ending == "close":
        found.close()
    elif ending == "drop":
        del found
    elif ending == "end":
        list(found)
    else:
        with pytest.raises(KeyError):
            found.throw(KeyError("in the training step"))
    assert readers() == []
    assert not threads_module._open


def test_an_item_that_fails_ends_the_threads():
    class Broken(Steady):
        def __getitem__(self, position):
            raise OSError(position)

    found = batches(Broken(400), threads=3)
    with pytest.raises(TrainingFailed, match="sample"):
        next(found)
    assert readers() == []


class Stuck(Steady):
    """Items that wait for what does not come, in every thread but the main one."""

    def __init__(self):
        super().__init__(400)
        self.go_on = threading.Event()

    def __getitem__(self, position):
        if threading.current_thread() is not threading.main_thread():
            self.go_on.wait()
        return super().__getitem__(position)


def test_an_interruption_does_not_wait_for_an_item_that_takes_for_ever(monkeypatch):
    monkeypatch.setattr(threads_module, "GRACE_S", 0.05)
    dataset = Stuck()
    found = batches(dataset, threads=2)
    next(found)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    left = readers()
    dataset.go_on.set()
    for thread in left:
        thread.join(60)
    assert readers() == []


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_collate_that_draws_runs_in_the_thread_that_trains_and_draws_as_without_threads():
    def noisy(items):
        assert threading.current_thread() is threading.main_thread()
        return {"numbers": torch.stack([item[0] for item in items]) + torch.rand(len(items), 1)}

    runs = []
    for threads in (0, 1, 3):
        torch.manual_seed(threads)
        state = torch.default_generator.get_state()
        runs.append([plain(batch) for batch in batches(Steady(), threads=threads, collate=noisy)])
        assert torch.default_generator.get_state().equal(state)
    assert runs[0] == runs[1] == runs[2]


def test_a_keyboard_interrupt_that_an_item_raises_is_its_error():
    class Interrupting(Steady):
        def __getitem__(self, position):
            if threading.current_thread() is not threading.main_thread():
                raise KeyboardInterrupt
            return super().__getitem__(position)

    with pytest.raises(TrainingFailed, match=r"an item raised KeyboardInterrupt.*test_threads"):
        list(batches(Interrupting(400), threads=2))


SCRIPT = """
import builtins, os, signal, sys
from support.numbers.drawing_data import Steady, batches
class Stuck(Steady):
    def __getitem__(self, position):
        import threading
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return super().__getitem__(position)
builtins.kept = batches(Stuck(400), threads=2)
next(kept)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM)],
    ids=["end", "exit", "SIGTERM"],
)
def test_a_process_ends_while_threads_of_its_loader_wait(end, code):
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT.format(end=end)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert (process.returncode, process.stderr) == (code, "")
