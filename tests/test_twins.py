"""Two commands of one config at the same moment: both end well, in the same bytes, as one run."""

import json
import time

import mlflow
import pytest
from project import Project
from test_interrupted import SLOW, Command, points

pytestmark = pytest.mark.server


def test_two_at_once_end_in_the_same_bytes_and_one_run(tmp_path, tracker, prefect_api):
    alone = Project(tmp_path / "alone", name="alone")
    twins = Project(tmp_path / "twins")
    for project in (alone, twins):
        project.write("model.py", SLOW)
    code, out = Command(alone).end()
    assert code == 0
    expected = json.loads(out.splitlines()[-1])
    first = Command(twins)
    time.sleep(0.5)  # so that neither is always ahead in the same place
    second = Command(twins)
    results = []
    for command in (first, second):
        code, out = command.end()
        assert code == 0, command.errors.read_text()
        results.append(json.loads(out.splitlines()[-1]))
    assert {one["weights_sha256"] for one in results} == {expected["weights_sha256"]}
    runs = {one["mlflow_run_id"] for one in results}
    assert len(runs) == 1
    assert points(runs.pop()) == points(expected["mlflow_run_id"])
    found = mlflow.MlflowClient().search_runs(
        [one.experiment_id for one in mlflow.MlflowClient().search_experiments()]
    )
    assert len(found) == 2
    assert not list(twins.store.glob("damaged/**/*.json"))
