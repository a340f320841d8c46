"""The real command on real parts, and a store on an S3 server that fails and is killed."""

import pytest
from support.histories.history import Fault, History, Life
from support.real.drawn import drawn
from support.real.nemesis import Whole
from support.real.project import MICRO_STEPS
from support.real.runs import QUICK, RealRuns

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prefect_server, empty_mlflow):
    folder = tmp_path_factory.mktemp("real")
    return RealRuns(folder, 30, prefect_server[0], empty_mlflow, step_seconds=0.02)


@pytest.fixture(scope="module")
def unbroken(runs):
    return runs.unbroken("unbroken")


# Of the run below, counted: 3 epochs with commits after each update.
WHOLE = Whole({"complete": 6, "part": 18, "put": 80}, MICRO_STEPS, 10.0)


def test_a_life_with_a_server_that_fails_and_is_killed_ends_as_an_unbroken_one(runs):
    faults = (
        Fault("server", "complete lost", 0.1), Fault("server", "put doubled", 0.2, 2),
        Fault("server", "part reset", 0.2), Fault("server", "put kill_after", 0.4),
        Fault("process", "stop trainer", 0.3),
    )  # fmt: skip
    expected = runs.inline("inline")
    ending = runs.history(History(0, QUICK, (Life(faults=faults),)), WHOLE, expected)
    assert ending.right, ending
    assert all(ending.reached), ending
    assert ending.lives == 1


@pytest.mark.slow
def test_a_run_whose_processes_are_killed_ends_as_an_unbroken_one(runs, unbroken):
    lives = (
        Life(faults=(Fault("process", "kill trainer", 0.4),)),
        Life(faults=(Fault("process", "kill all", 0.5), Fault("server", "get flip", 0.1, 2))),
    )
    ending = runs.history(History(1, {**QUICK, "workers": 2}, lives), *unbroken)
    assert ending.right, ending
    assert ending.lives == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(101, 104))
def test_a_history_from_a_seed_ends_as_an_unbroken_run(seed, runs, unbroken):
    ending = runs.history(drawn(seed, size_mb=30), *unbroken)
    assert ending.right, ending
