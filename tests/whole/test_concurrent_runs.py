"""Two commands of one config at the same moment: both end well, in the same bytes, as one run."""

import time

import mlflow
import pytest
from support.runs.command import Command, points
from support.runs.project import Project

pytestmark = pytest.mark.server


@pytest.mark.slow
def test_two_at_once_end_in_the_same_bytes_and_one_run(tmp_path, tracker, prefect_api):
    alone = Project(tmp_path / "alone", name="alone")
    twins = Project(tmp_path / "twins")
    expected = Command(alone, STEP_SECONDS="0").result()
    first = Command(twins)
    time.sleep(0.5)  # so that neither is always ahead in the same place
    second = Command(twins)
    results = [command.result() for command in (first, second)]
    assert {one["weights_sha256"] for one in results} == {expected["weights_sha256"]}
    runs = {one["mlflow_run_id"] for one in results}
    assert len(runs) == 1
    assert points(runs.pop()) == points(expected["mlflow_run_id"])
    found = mlflow.MlflowClient().search_runs(
        [one.experiment_id for one in mlflow.MlflowClient().search_experiments()]
    )
    assert len(found) == 2
    assert not list(twins.store.glob("damaged/**/*.json"))
