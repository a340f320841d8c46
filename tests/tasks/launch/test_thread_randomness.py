"""`random` behind separate threads: the main one's numbers are those of the module as it is."""

import importlib
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epochal.tasks.launch import thread_randomness
from epochal.tasks.launch.thread_randomness import CLIENTS, separate_threads

GLOBAL = tuple(
    name
    for name in random.__all__
    if getattr(getattr(random, name), "__self__", None) is random._inst
)
real, positive = st.floats(-5, 5), st.floats(0.1, 5)
ARGUMENTS = {
    "seed": st.tuples(st.one_of(st.integers(), st.text(), st.binary(), st.floats(-5, 5))),
    "random": st.just(()),
    "uniform": st.tuples(real, real),
    "triangular": st.tuples(st.floats(-5, 0), st.floats(1, 5), st.floats(0, 1)),
    "randint": st.tuples(st.integers(-9, 0), st.integers(0, 1 << 40)),
    "choice": st.tuples(st.text(min_size=1)),
    "randrange": st.tuples(st.integers(-9, 0), st.integers(1, 99), st.integers(1, 9)),
    "sample": st.tuples(st.lists(st.integers(), min_size=5), st.integers(0, 5)),
    "shuffle": st.tuples(st.lists(st.integers())),
    "choices": st.tuples(st.text(min_size=1)),
    "normalvariate": st.tuples(real, positive),
    "lognormvariate": st.tuples(real, positive),
    "expovariate": st.tuples(positive),
    "vonmisesvariate": st.tuples(positive, positive),
    "gammavariate": st.tuples(positive, positive),
    "gauss": st.tuples(real, positive),
    "betavariate": st.tuples(positive, positive),
    "binomialvariate": st.tuples(st.integers(0, 40), st.floats(0, 1)),
    "paretovariate": st.tuples(positive),
    "weibullvariate": st.tuples(positive, positive),
    "getrandbits": st.tuples(st.integers(0, 200)),
    "randbytes": st.tuples(st.integers(0, 40)),
    "getstate": st.just(()),
    "setstate": st.integers().map(lambda seed: (random.Random(seed).getstate(),)),
}
"""Of each function: what it can be called with."""


@pytest.fixture
def separated(monkeypatch):
    """`random` as in a trainer, whose main thread is this one, until the test ends."""
    for name in GLOBAL:
        monkeypatch.setattr(random, name, getattr(random, name))
    monkeypatch.setattr(thread_randomness, "_main", [])
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(importlib._bootstrap, "_find_and_load", importlib._bootstrap._find_and_load)
    separate_threads()


def in_thread(work):
    """What `work()` gives in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def called_by(module, expression):
    """What an expression with `random` gives in the code of that module."""
    return eval(expression, {"__name__": module, "random": random})


def in_process(code):
    """The last line that a new Python prints, which has separated its threads first."""
    begin = "from epochal.tasks.launch.thread_randomness import separate_threads as s\ns()\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + textwrap.dedent(code)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()[-1]


def test_every_function_of_the_shared_generator_is_separated(separated):
    assert set(GLOBAL) <= set(ARGUMENTS)
    assert all(hasattr(getattr(random, name), "__wrapped__") for name in GLOBAL)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    seed=st.integers(0, (1 << 64) - 1),
    calls=st.lists(
        st.sampled_from(GLOBAL).flatmap(
            lambda name: st.tuples(st.just(name), ARGUMENTS[name], st.booleans())
        ),
        max_size=30,
    ),
)
def test_the_main_threads_numbers_are_bit_for_bit_those_of_the_module(separated, seed, calls):
    alone = random.Random(seed)
    random.seed(seed)
    for name, arguments, disturbed in calls:
        here, there = ([*map(_copy, arguments)] for _ in range(2))
        assert getattr(random, name)(*here) == getattr(alone, name)(*there)
        assert here == there  # `shuffle` works in place
        if disturbed:
            called_by("botocore.retryhandler", "(random.seed(0), random.gauss(0, 1))")
    assert random.getstate() == alone.getstate()


def _copy(argument):
    return list(argument) if isinstance(argument, list) else argument


@pytest.mark.parametrize(
    "work",
    [
        lambda: random.gauss(0, 1),
        lambda: random.seed(0),
        lambda: random.setstate(random.Random(5).getstate()),
        lambda: random.shuffle([1, 2, 3]),
    ],
)
def test_nothing_that_another_thread_does_moves_the_main_threads_generator(separated, work):
    random.seed(7)
    before = random.getstate()
    in_thread(work)
    assert random.getstate() == before


def test_another_thread_keeps_its_own_sequence(separated):
    assert in_thread(lambda: (random.seed(5), random.random())[1]) == random.Random(5).random()


def test_two_threads_draw_different_numbers(separated):
    assert in_thread(random.random) != in_thread(random.random)


@pytest.mark.parametrize("package", sorted(CLIENTS))
def test_a_client_that_waits_in_the_main_thread_does_not_move_its_generator(separated, package):
    random.seed(7)
    expected = random.Random(7).random()
    called_by(f"{package}.retry", "random.random()")
    called_by(package, "random.seed(0)")
    assert called_by("google.research.augment", "random.random()") == expected


def test_the_clients_of_an_object_store_do_not_move_it_where_they_wait_to_try_again():
    code = """
        import random
        from botocore.retries.standard import ExponentialBackoff, RetryContext
        from botocore.retryhandler import delay_exponential
        from google.auth._exponential_backoff import ExponentialBackoff as Google
        from urllib3.util import Retry

        failed = Retry(9, backoff_factor=0.1, backoff_jitter=1.0)
        for _ in range(3):
            failed = failed.increment("GET", "/", error=OSError())
        random.seed(7)
        delay_exponential("rand", 2, 3)
        ExponentialBackoff().delay_amount(RetryContext(attempt_number=3))
        list(Google(initial_wait_seconds=0.001))
        failed.get_backoff_time()
        print(random.random())
    """
    assert float(in_process(code)) == random.Random(7).random()


def test_what_a_module_takes_for_itself_and_the_hidden_generator_are_the_main_threads():
    code = """
        import random
        from random import gauss, seed

        seed(3)
        print((random.random(), gauss(0, 1), random._inst.random(), random.getrandbits(9)))
    """
    alone = random.Random(3)
    expected = (alone.random(), alone.gauss(0, 1), alone.random(), alone.getrandbits(9))
    assert eval(in_process(code)) == expected


@pytest.mark.parametrize("raised", ["import missing_module", "raise ValueError"])
def test_the_traceback_of_a_failed_import_ends_in_the_users_own_line(
    raised, separated, tmp_path, monkeypatch
):
    (tmp_path / "broken.py").write_text(raised)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((ImportError, ValueError)) as failed:
        exec("import broken", {})
    files = [frame.filename for frame in traceback.extract_tb(failed.value.__traceback__)]
    assert files[-1] == str(tmp_path / "broken.py")
    assert not {one for one in files if "importlib" in one or one == thread_randomness.__file__}


def test_a_module_that_draws_while_it_is_imported_does_not_move_it(tmp_path):
    (tmp_path / "drawing.py").write_text("import random, inner\nrandom.random()")
    (tmp_path / "inner.py").write_text("import random\nrandom.seed(0)\nrandom.random()")
    (tmp_path / "failing.py").write_text("import random\nrandom.random()\nraise OSError('told')")
    code = f"""
        import contextlib, importlib, random, sys

        sys.path.append({str(tmp_path)!r})
        random.seed(3)
        import drawing
        with contextlib.suppress(OSError):
            importlib.import_module("failing")
        print(random.random())
    """
    assert float(in_process(code)) == random.Random(3).random()


def test_generators_of_ones_own_and_the_systems_are_left_as_they_are():
    code = """
        import random, secrets, tempfile, uuid

        random.seed(3)
        secrets.token_hex(), uuid.uuid4(), tempfile.mktemp(), random.SystemRandom().random()
        random.Random(9).random()
        print((random.Random(9).random(), random.random()))
    """
    assert eval(in_process(code)) == (random.Random(9).random(), random.Random(3).random())


def test_a_forked_process_has_the_numbers_in_its_own_main_thread():
    code = """
        import multiprocessing, os, random, threading

        def work(pipe):
            random.seed(3)
            thread = threading.Thread(target=lambda: (random.seed(0), random.random()))
            thread.start()
            thread.join()
            pipe.send((random.random(), random._inst.random()))

        def fork(found):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
            process.start()
            found.append(ours.recv())
            process.join()

        found = []
        fork(found)
        thread = threading.Thread(target=fork, args=(found,))
        thread.start()
        thread.join()
        print(found)
    """
    alone = random.Random(3)
    assert eval(in_process(code)) == [(alone.random(), alone.random())] * 2


def test_processes_that_are_forked_do_not_wait_equally_long():
    code = """
        import os, random

        def wait():
            return eval("random.random()", {"__name__": "botocore.retryhandler", "random": random})

        wait()
        reading, writing = os.pipe()
        for _ in range(2):
            if not os.fork():
                os.write(writing, f"{wait()} ".encode())
                os._exit(0)
            os.wait()
        print(os.read(reading, 999).decode())
    """
    first, second = in_process(code).split()
    assert first != second


def test_a_function_can_be_called_where_no_python_calls_it():
    code = """
        import atexit, random

        atexit.register(lambda: print(random.random()))
        atexit.register(random.seed, 3)  # called first, as the last one registered
    """
    assert float(in_process(code)) == random.Random(3).random()


def test_a_function_of_random_can_be_pickled_by_its_name(separated):
    assert pickle.loads(pickle.dumps(random.gauss)) is random.gauss
    assert repr(random.gauss).startswith("<function gauss")
