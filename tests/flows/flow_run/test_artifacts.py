"""What Prefect's page shows of a run under Artifacts, and by its name."""

import base64
import socket
import threading

import httpx
import pytest
import yaml
from support.runs.machine import wait_for
from support.runs.project import Project

from epochal.flows.flow_run import artifacts
from epochal.flows.flow_run.artifacts import RunPage
from epochal.flows.flow_run.client import talking_to

pytestmark = pytest.mark.server


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    return Project(tmp_path / "project", epochs=2)


def flow_runs(api, name):
    asked = {"flow_runs": {"name": {"like_": f"{name}@"}}, "sort": "START_TIME_ASC"}
    return httpx.post(f"{api}/flow_runs/filter", json=asked).raise_for_status().json()


def shown(api, run):
    asked = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    held = httpx.post(f"{api}/artifacts/filter", json=asked).raise_for_status().json()
    by_key = {one["key"].rpartition("-")[2]: one for one in held}
    assert len(by_key) == len(held)
    return by_key


def test_a_run_shows_its_progress_epochs_curves_config_and_where_else_to_look(project, prefect_api):
    done = project("train", name="On_Page.1")
    assert done.code == 0, done.err
    (run,) = flow_runs(prefect_api, "On_Page.1")
    assert run["name"] == "On_Page.1@1 · epochs 2 · lr=0.01"
    assert {"epochal", "On_Page.1", "On_Page.1@1"} <= set(run["tags"])
    held = shown(prefect_api, run)
    assert {one["key"] for one in held.values()} == {
        f"on-page-1-{what}" for what in ("progress", "epochs", "curves", "links", "config")
    }
    assert held["progress"]["data"] == 100
    assert held["progress"]["description"].startswith("**2 of 2 epochs** · loss ")
    assert held["progress"]["description"].endswith(" · done")
    rows = held["epochs"]["data"]
    rows = yaml.safe_load(rows) if isinstance(rows, str) else rows
    assert [row["epoch"] for row in rows] == [1, 0]
    assert {"train loss", "validation accuracy", "gradient norm", "samples"} <= set(rows[0])
    image = held["curves"]["data"].partition("base64,")[2].rstrip(")")
    assert base64.b64decode(image).startswith(b"<svg")
    config = held["config"]["data"].partition("```yaml\n")[2].removesuffix("```")
    assert yaml.safe_load(config)["optimizer"]["args"] == {"lr": 0.01}
    assert "epochal show On_Page.1@1" in held["links"]["data"]


def test_generations_and_what_is_cached_are_told_apart_by_name(project, prefect_api):
    for sets in ({}, {}, {"optimizer.args.lr": 0.02}, {"optimizer.args.lr": 0.02, "epochs": 3}):
        assert project("train", name="apart", **sets).code == 0
    # The last epoch trains on all: with another number of epochs the second one is another.
    assert [run["name"] for run in flow_runs(prefect_api, "apart")][:3] == [
        "apart@1 · epochs 2 · lr=0.01",
        "apart@1 · epochs 2, all cached · lr=0.01",
        "apart@2 · epochs 2 · lr=0.02",
    ]


class _Silent:
    """A run of which nothing is known yet."""

    tracker = None
    outcomes = ()


def test_a_server_that_never_answers_holds_nobody_up(monkeypatch):
    monkeypatch.setattr(artifacts, "LAST_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with talking_to(f"http://127.0.0.1:{port}/api"):
            page = RunPage(_Silent(), None)
            page.start()
            told = threading.Thread(target=lambda: [page.ended(None) for _ in range(10_000)])
            told.start()
            told.join()
            page.close("done")
        assert wait_for(lambda: not told.is_alive())
