"""A sweep from Python: what its command prints, as a table of runs and a frame."""

import asyncio
import json

import pytest
from support.runs.project import call
from support.runs.sweeps import KNOWN, SweepProject, made_up, worked

import epochal
from epochal.flows.library import sweeps

ENDS = {"schedule.final": [0.0, 0.5]}


VALUES = {0.0: 0.7, 0.5: 0.9}


@pytest.fixture
def project(tmp_path, home):
    return made(tmp_path, ENDS)


def made(folder, vary):
    return SweepProject(folder / "project", run={"epochs": 2, **KNOWN}, vary=vary)


@pytest.fixture
def in_no_time(monkeypatch):
    """Runs whose records are made up; the one with seed 13 fails."""

    def run_sweep(work):
        worked(
            work,
            made_up(
                lambda config, _: VALUES.get(config.schedule.final, 0.5),
                fails=lambda job: job.config.seed == 13,
            ),
        )
        return work.result()

    monkeypatch.setattr(sweeps, "run_sweep", run_sweep)


def test_a_sweep_is_a_frame_of_its_runs_the_best_first(project, in_no_time):
    found = epochal.sweep(project.sweep)
    assert found["epochs"] == {"distinct": 3, "sum": 4, "computed": 3}
    assert found.best == "blobs-final0.5"
    frame = found.to_pandas()
    assert frame.index.tolist() == ["blobs-final0.5", "blobs-final0"]
    assert frame["schedule.final"].tolist() == [0.5, 0.0]
    assert frame["validation/accuracy"].tolist() == [0.9, 0.7]
    assert frame["state"].tolist() == ["done", "done"]
    assert frame["key"].is_unique
    weights = {one["run"]: one["weights_sha256"] for one in found["runs"]}
    assert frame["weights_sha256"].to_dict() == weights
    assert repr(found).splitlines()[0] == "sweep blobs, by accuracy"
    assert repr(found).splitlines()[-1] == "3 epochs for 2 runs that have 4; 3 computed now"
    assert "<td>blobs-final0.5</td>" in found._repr_html_()


def test_a_run_that_fails_is_raised_once_the_others_are_trained(tmp_path, home, in_no_time):
    with pytest.raises(epochal.TrainingFailed) as raised:
        epochal.sweep(made(tmp_path, {"seed": [13, 14]}).sweep)
    assert str(raised.value) == (
        "1 of 2 runs failed; the others are done\nblobs-seed13: it explodes"
    )
    result = raised.value.result
    assert result.best == "blobs-seed14"
    frame = result.to_pandas()
    assert frame["state"].to_dict() == {"blobs-seed14": "done", "blobs-seed13": "failed"}
    assert frame.loc["blobs-seed13", "error"] == "it explodes"


def test_where_all_runs_fail_no_others_are_said_to_be_done(tmp_path, home, in_no_time):
    with pytest.raises(epochal.TrainingFailed, match="^1 of 1 runs failed\n"):
        epochal.sweep(made(tmp_path, {"seed": [13]}).sweep)


@pytest.mark.slow
@pytest.mark.server
def test_a_sweep_in_a_notebook_is_that_of_the_command(project, tracker, prefect_api):
    async def cell():  # a notebook's cells run inside an event loop
        return epochal.sweep(project.sweep, overrides=["loader.batch_size=32"], concurrency=2)

    first = asyncio.run(cell())
    assert first["epochs"] == {"distinct": 3, "sum": 4, "computed": 3}
    assert first.to_pandas()["mlflow_run_id"].notna().all()
    again = call("sweep", str(project.sweep), "--set", "loader.batch_size=32", "--json").json
    assert again["runs"] == json.loads(json.dumps(first))["runs"]
    assert again["epochs"]["computed"] == 0


def test_the_plan_of_a_sweep_is_that_of_the_command_and_starts_nothing(project):
    plan = epochal.plan(project.sweep, overrides=["epochs=3"])
    assert plan == call("plan", str(project.sweep), "--set", "epochs=3", "--json").json
    assert plan["epochs"] == {"distinct": 4, "sum": 6, "done": 0}
    frame = plan.to_pandas()
    assert frame.index.tolist() == [one["run"] for one in plan["runs"]]
    assert frame["schedule.final"].tolist() == ENDS["schedule.final"]
    assert frame["shared"].tolist() == [2, 2]
    assert "2 runs have 6 epochs, of which 4 are distinct" in repr(plan)
    assert not project.store.exists()


def test_a_dict_is_the_sweep_that_its_file_would_be(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    given = {"run": "run.yaml", "vary": ENDS}
    assert epochal.plan(given) == epochal.plan("sweep.yaml")
    assert given == {"run": "run.yaml", "vary": ENDS}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"vary": ENDS}, "sweep: run: is missing"),
        ({"run": "nowhere.yaml", "vary": ENDS}, "nowhere.yaml"),
        ({"run": "run.yaml", "vary": {"nothing.like": [1]}}, "there is no such key"),
        ({"model": {}}, "it is the config of a run"),
        ("run.yaml", "it is the config of a run"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_what_is_wrong_with_a_sweep_is_raised_before_anything_starts(
    given, words, project, monkeypatch
):
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sweeps, "run_sweep", None)
    with pytest.raises(epochal.ConfigError, match=words):
        epochal.sweep(given)
