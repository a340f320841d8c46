"""The real command on real parts, and a store on an S3 server that fails and is killed."""

import pytest
from support.histories.history import Fault, History, Life
from support.real.drawn import drawn
from support.real.nemesis import Whole
from support.real.runs import QUICK, RealRuns

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def runs(tmp_path_factory, prefect_server, empty_mlflow):
    folder = tmp_path_factory.mktemp("real")
    return RealRuns(folder, 70, prefect_server[0], empty_mlflow, step_seconds=0.02)


@pytest.fixture(scope="module")
def unbroken(runs):
    return runs.unbroken("unbroken")


SHORT = {**QUICK, "epochs": 2}
# Of its end of epochs; whether commits inside them are complete too goes by the machine's speed.
WHOLE = Whole({"complete": 2, "part": 6, "put": 50}, 20, 10.0)


def test_a_life_with_a_server_that_fails_and_is_killed_ends_as_an_unbroken_one(runs):
    faults = (
        Fault("server", "complete lost", 0.0), Fault("server", "put doubled", 0.1, 2),
        Fault("server", "part reset", 0.1), Fault("server", "put kill_after", 0.3),
        Fault("process", "stop trainer", 0.3),
    )  # fmt: skip
    expected = runs.inline("inline", SHORT)
    ending = runs.history(History(0, SHORT, (Life(faults=faults),)), WHOLE, expected)
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
    ending = runs.history(drawn(seed, size_mb=runs.size_mb), *unbroken)
    assert ending.right, ending
