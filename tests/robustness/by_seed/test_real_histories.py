"""The real command on real parts, and a store on an S3 server that fails and is killed."""

import hashlib
from dataclasses import replace

import pytest
from support.histories.history import Fault, History, Life
from support.real.drawn import drawn
from support.real.found import Found, differences, found
from support.real.nemesis import Whole
from support.real.runs import QUICK, RealRuns

from epochal.data.testing.s3.objects import Objects, StoredObject

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]


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


FOUND = Found("a" * 64, {"stage": {"loss": 1}}, frozenset({"stage/a"}), {"loss": [(1, 0.5)]})
OTHERS = {
    "weights": "b" * 64, "records": {"stage": {"loss": 2}}, "artifacts": frozenset(),
    "points": {"loss": [(1, 0.5), (2, 0.4)]},
}  # fmt: skip


@pytest.mark.parametrize("field", OTHERS)
def test_whatever_is_not_as_in_an_unbroken_run_is_told(field):
    assert differences(FOUND, FOUND) == []
    assert len(differences(replace(FOUND, **{field: OTHERS[field]}), FOUND)) == 1
    assert len(differences(FOUND, replace(FOUND, **{field: OTHERS[field]}))) == 1


def test_wrong_bytes_and_a_point_that_is_there_twice_are_told(tmp_path, monkeypatch):
    point = {"loss": [(1, 0.5), (1, 0.5)]}
    monkeypatch.setattr("support.real.found.points", lambda *_: point)
    (tmp_path / "scratch").mkdir()
    objects = Objects(tmp_path / "buckets", tmp_path / "scratch")
    objects.make_bucket("b")
    right, wrong = hashlib.sha256(b"right").hexdigest(), hashlib.sha256(b"other").hexdigest()
    for name in (right, wrong):
        path = tmp_path / "scratch" / name
        path.write_bytes(b"right")
        stored = StoredObject(f"run/stages/s/{name}.parquet", 5, "etag", 0.0)
        objects.put("b", path, stored, none_match=True)
    result = {"weights_sha256": "", "mlflow_run_id": "", "mlflow_tracking_uri": ""}
    _, told = found(tmp_path, "b", "run", result)
    assert [wrong in told[0], "loss twice" in told[1], len(told)] == [True, True, 2]
