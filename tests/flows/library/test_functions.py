"""The commands as functions: each gives what its command prints with `--json`."""

import asyncio
import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

import epochal
from epochal.flows.library import functions

DONE = {"run", "done", "would_run", "bitwise", "data_not_read", "stages"}


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2)


@pytest.mark.server
def test_a_run_is_trained_once_and_its_plan_and_samples_are_those_of_the_commands(
    tmp_path, tracker, prefect_api
):
    project = Project(tmp_path / "project", epochs=1)

    async def cell():  # a notebook's cells run inside an event loop
        return epochal.train(project.config)

    first = asyncio.run(cell())
    assert {"weights_sha256", "metrics", "mlflow_run_id"} <= set(first)
    (row,) = first.to_pandas().to_dict("records")
    assert row["validation/accuracy"] == first["metrics"]["validation/accuracy"]
    assert first["weights_sha256"] in repr(first)
    assert f'<a href="{prefect_api.removesuffix("/api")}' in first._repr_html_()
    assert [one["cached"] for one in first["stages"]] == [False] * 4
    again = epochal.train(epochal.load_config(project.config))
    assert all(one["cached"] for one in again["stages"])
    assert project("train").json["weights_sha256"] == first["weights_sha256"]


@pytest.mark.server
def test_a_run_that_stops_early_still_averages_the_epochs_that_it_has(
    tmp_path, tracker, prefect_api
):
    project = Project(
        tmp_path / "project",
        epochs=4,
        averaging={"best": 2},
        early_stopping={"metric": "accuracy", "patience": 1, "min_delta": 1},
    )
    result = epochal.train(project.config)
    assert result["stopped_early"] == 1
    assert [one["stage"] for one in result["stages"]][-2:] == ["average", "validate_average"]


def test_a_plan_is_that_of_the_command_and_starts_nothing(project):
    plan = epochal.plan(str(project.config))
    assert set(plan) == DONE
    assert {one["done"] for one in plan["stages"]} == {False}
    assert json.loads(json.dumps(plan)) == project("plan").json
    assert plan.to_pandas()["stage"].tolist() == [one["stage"] for one in plan["stages"]]
    assert repr(plan).splitlines()[0] == "plan of blobs: 0 stages done, 7 would run"
    assert not project.store.exists()


def test_samples_are_those_of_the_command(project):
    BareRun(project.config)()
    hardest = epochal.samples(project.config, order="hardest", count=3)
    assert hardest == call("samples", str(project.config), "--hardest", "3", "--json").json
    assert len(hardest["samples"]) == 3
    assert hardest.to_pandas().index.tolist() == [one["sample_id"] for one in hardest["samples"]]
    assert pd.read_parquet(hardest["tables"][1]["observations"])["sample_id"].is_unique
    assert len(epochal.samples(project.config)["samples"]) == 20


def test_runs_are_those_of_the_command(project):
    BareRun(project.config)()
    BareRun(project.config, optimizer__args__lr=0.02)()
    found = epochal.runs(project.store)
    assert found == call("runs", str(project.store), "--json").json
    assert found == epochal.runs(project.config)
    frame = found.to_pandas()
    assert frame["generation"].tolist() == [one["generation"] for one in found["runs"]]
    assert frame["validation/accuracy"].notna().all()


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"order": "hard"}, "'hard'; expected one of easiest, hardest"), ({"count": 0}, "found 0")],
)
def test_what_samples_cannot_be_asked_for_is_named(asked, words, project):
    with pytest.raises(epochal.InputError, match=words):
        epochal.samples(project.config, **asked)


def test_where_a_trainer_computes_the_call_imports_no_torch(tmp_path, home, monkeypatch):
    done = SimpleNamespace(result={}, reference="blobs@1", rows=[], where_to_look=[])
    monkeypatch.setattr(functions, "run_training", lambda *_, **__: done)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert epochal.train(Project(tmp_path / "one", launch={"kind": "local"}).config) == {}
    with pytest.raises(ImportError):
        epochal.train(Project(tmp_path / "other", launch={"kind": "inline"}).config)


def test_the_threads_of_one_config_are_not_those_of_the_next_run(tmp_path, home):
    before = torch.get_num_threads()
    project = Project(tmp_path / "project", threads=before + 1, model={"target": "nowhere:Net"})
    with pytest.raises(epochal.TargetError, match="nowhere"):
        epochal.train(project.config)
    assert torch.get_num_threads() == before
