"""A sample of the histories: real processes, several faults, and the bytes of an unbroken run."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from robustness.by_seed.histories import told
from support.histories import life as lives
from support.histories.commit_thread import CommitRule, CommitThread
from support.histories.draw import SEEDS_OF_A_CONFIG, drawn, drawn_config
from support.histories.forked import Forked
from support.histories.history import Fault, History, Life
from support.histories.life import Answer, Order
from support.histories.turnstile import Child, Turnstile

from epochal.data.testing.plan import KILLED
from epochal.tasks.checkpoints import mid_epoch_restore
from epochal.tasks.upkeep import Garbage

QUICK = 20
"""The seed of the histories in the default suite, and of their config."""
SLOW = range(4000, 4060)
WITH_RANKS = (81, 85, 86, 95, 181, 182)


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("histories")
    (folder / "home").mkdir()
    yield Forked(folder)
    torch.set_num_threads(threads)


def assert_right(history, ending):
    assert ending.right, told(history, ending)


@pytest.mark.parametrize("seed", [QUICK, QUICK + 3])
def test_a_history_ends_as_an_unbroken_run(seed, forked):
    history = drawn(seed)
    assert_right(history, forked.ended(history))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*SLOW, *WITH_RANKS])
def test_more_histories_end_as_an_unbroken_run(seed, forked):
    history = drawn(seed)
    assert_right(history, forked.ended(history))


@pytest.mark.slow
def test_a_replay_by_another_process_prints_the_same():
    script = Path(__file__).with_name("histories.py")
    command = [sys.executable, str(script), "--seed", str(QUICK)]
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:tests"}
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(2)
    )
    assert first == second
    assert "trace " in first


EVERYTHING = Life(
    faults=(
        Fault("store", "flip", 0.1, 2),
        Fault("disk", "lying", 0.2),
        Fault("store", "kill", 0.4),
    ),
    beside=(("second", 0.1), ("gc", 0.2), ("verify", 0.3)),
)


def test_a_replay_is_the_same_with_several_processes_at_work(forked):
    history = History(QUICK, drawn_config(QUICK // SEEDS_OF_A_CONFIG), (EVERYTHING,))
    first, second = forked.ended(history), forked.ended(history)
    assert_right(history, first)
    assert first == second
    assert first.reached == (True, True, True)
    other = forked.ended(replace(history, seed=QUICK + 1))
    assert other.trace != first.trace


# --- a mistake is found -----------------------------------------------------------------------


def inside_an_epoch():
    """A kill inside an accumulation, behind a commit; its seed is one of frequent commits."""
    often = CommitRule(2, 1, beside=False)
    seed = next(one for one in range(10**6) if CommitRule.of(one) == often)
    config = {**drawn_config(QUICK // SEEDS_OF_A_CONFIG), "sampling": {"policy": "none"}}
    config["gradients"] = {"accumulate": 4, "shards": 1, "clip_norm": 1.0}
    return History(seed, config, (Life(faults=(Fault("process", "kill", 0.3),)),))


def test_gradients_under_way_that_are_not_restored_are_found(forked, monkeypatch):
    history = inside_an_epoch()
    assert_right(history, forked.ended(history))
    restore = mid_epoch_restore.restore
    monkeypatch.setattr(
        mid_epoch_restore, "restore", lambda *given: replace(restore(*given), gradients={})
    )
    ending = forked.ended(history)
    assert ending.reached == (True,)
    assert any(one.startswith("digests: train/") for one in ending.differs), ending


def test_what_gc_must_not_remove_is_found_to_be_missing(forked, monkeypatch):
    history = replace(inside_an_epoch(), lives=())
    forked.unbroken(history.config)  # without the mistake

    def greedy(store):
        return Garbage({path: 1 for path in store.listing("stages") if path.endswith(".parquet")})

    monkeypatch.setattr(lives, "find_garbage", greedy)
    ending = forked.ended(history)
    assert not ending.right
    assert "is missing from the store" in ending.notes[-1]


def test_a_run_that_never_ends_well_is_not_whole(forked, monkeypatch):
    monkeypatch.setattr(lives.BareRun, "__call__", lambda self: self.nothing)
    ending = forked.ended(replace(inside_an_epoch(), lives=()))
    assert "AttributeError" in ending.broken
    assert not ending.right


# --- the parts --------------------------------------------------------------------------------


def test_a_life_that_is_killed_tells_which_faults_it_reached(forked, tmp_path):
    unbroken = forked.unbroken(drawn_config(QUICK // SEEDS_OF_A_CONFIG))
    faults = ((Fault("store", "eio", 0.0), 10**6), (Fault("store", "kill_after", 0.0), 5))
    order = Order(
        "run", unbroken.config, f"file://{tmp_path}/store", seed=1, number=0,
        answer=tmp_path / "answer.json", parts=tmp_path / "parts.jsonl", faults=faults,
    )  # fmt: skip
    child = Child.fork("run", partial(lives.live, order))
    Turnstile(Random(1)).run(child)
    answer = Answer.read(order.answer)
    assert child.code == KILLED
    assert answer.reached == [False, True]
    assert (answer.counts["store"], answer.found) == (5, None)
    assert json.loads(order.answer.read_text())["trace"] == answer.trace


def worker(name, count, log):
    def live(gate):
        for _ in range(count):
            gate()
            with log.open("a") as file:
                file.write(name)
        os._exit(0)

    return lambda: Child.fork(name, live)


def test_processes_do_their_operations_in_the_order_of_the_seed(tmp_path):
    logs = []
    for number, seed in enumerate((3, 3, 4)):
        log = tmp_path / str(number)
        first = worker("a", 40, log)()
        turnstile = Turnstile(Random(seed))
        children = turnstile.run(first, [(5, worker("b", 30, log)), (10, worker("c", 20, log))])
        assert [child.code for child in children] == [0, 0, 0]
        logs.append(log.read_text())
        assert logs[-1] == "".join(turnstile.order)
    assert logs[0] == logs[1] != logs[2]
    assert logs[0].startswith("aaaaa")
    assert {one: logs[0].count(one) for one in "abc"} == {"a": 40, "b": 30, "c": 20}


def test_a_commit_thread_goes_on_where_it_is_let():
    threads, log = CommitThread(Random(1)), []

    def work():
        threads.known()
        for number in range(5):
            threads.before_operation()
            log.append(number)
        threads.ended()

    def start():
        thread = threading.Thread(target=work)
        thread.start()
        return thread

    threads.add(start)
    assert log == []
    threads.run(2)
    assert log == [0, 1]
    threads.run_until(lambda: len(log) == 3)
    assert log == [0, 1, 2]
    threads.run_all()
    assert log == [0, 1, 2, 3, 4]
    threads.run(7)  # there is none left
