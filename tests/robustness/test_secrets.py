"""A password that somebody writes or sets stands in no file, no output and no table afterwards."""

import sqlite3
import traceback

import httpx
import pytest
import yaml
from support.runs.machine import free_port
from support.runs.project import Project, call, environment

from epochal.data.errors import ConfigError
from epochal.flows.library import functions
from epochal.tasks.config.run import RunConfig

SECRET = "pa55w0rd-of-mine"
URL = f"http://user:{SECRET}@127.0.0.1:9"
WRITTEN = [
    {"tracking": {"uri": URL}},
    {"tracking": {"uri": f"postgresql://u:{SECRET}@127.0.0.1:9/db"}},
    {"store": f"s3://u:{SECRET}@bucket/x"},
    {"store": f"s3://bucket/x?secret={SECRET}"},
    {"store": f"simplecache::s3://u:{SECRET}@bucket/x"},
    {"start": {"from": f"s3://u:{SECRET}@bucket/x.safetensors"}},
    {"start": {"from": f"s3://u:{SECRET}@bucket/store/run:3"}},
    {"train_data": {"target": "blobs:blobs", "files": [f"s3://u:{SECRET}@b/x"]}},
    {"train_data": {"target": "blobs:blobs", "files": [f"simplecache::https://u:{SECRET}@h/x"]}},
    {"train_data": {"target": "blobs:blobs", "args": {"url": f"https://u:{SECRET}@h/x"}}},
    {"train_data": {"target": "blobs:blobs", "args": {"storage_options": {"secret": SECRET}}}},
    {"model": {"target": "model:Net", "args": {"hub": {"api_key": SECRET}}}},
]


def left_in(*folders):
    """Files below them that hold the password."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".yaml" and SECRET.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("changes", WRITTEN, ids=str)
def test_a_password_in_a_config_is_refused_by_its_field_and_stands_nowhere(
    tmp_path, home, monkeypatch, changes
):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    project = Project(tmp_path / "project", **changes)
    for command in ("train", "plan", "deploy", "show", "sync"):
        done = call(command, str(project.config))
        assert done.code == 2, (command, done)
        assert next(iter(changes)) in done.err
        assert "password" in done.err
        assert SECRET not in done.out + done.err
    assert left_in(tmp_path) == []


def test_nor_is_it_repeated_where_the_command_line_or_the_environment_holds_it(
    tmp_path, home, monkeypatch
):
    project = Project(tmp_path / "project")
    place = f"s3://u:{SECRET}@bucket/x"
    cases = [
        (("train", str(project.config), "--set", f"tracking.uri={URL}"), {}),
        (("train", str(project.config), "--set", f"tracking.uri {URL}"), {}),
        (("train", str(project.config), "--set", f"seed.a={URL}"), {}),
        (("show", "blobs", "--store", place), {}),
        (("show", f"{place}/blobs"), {}),
        (("runs", place), {}),
        (("verify", f"s3://bucket/x?token={SECRET}"), {}),
        (("show", "blobs"), {"EPOCHAL_STORE": place}),
        (("deploy", str(project.config)), {"PREFECT_API_URL": f"{URL}/api"}),
        (("up",), {"PREFECT_API_URL": f"{URL}/api"}),
    ]
    for arguments, variables in cases:
        with environment(**variables):
            done = call(*arguments)
        assert done.code == 2, (arguments, done)
        assert SECRET not in done.out + done.err
    assert left_in(tmp_path) == []


def test_a_config_made_in_python_is_refused_without_repeating_it(tmp_path, home):
    project = Project(tmp_path / "project")
    body = yaml.safe_load(project.config.read_text())
    config = RunConfig.model_validate(
        {**body, "folder": str(project.folder), "tracking": {"uri": URL}}
    )
    with pytest.raises(ConfigError, match=r"tracking\.uri: holds a password") as caught:
        functions.train(config)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ValueError, match="epochs") as caught:
        RunConfig.model_validate({**body, "epochs": 0, "tracking": {"uri": URL}})
    assert SECRET not in str(caught.value)
    assert left_in(tmp_path) == []


@pytest.mark.server
def test_one_in_mlflows_address_from_the_environment_is_shown_nowhere(
    tmp_path, home, prefect_api, tmp_path_factory
):
    project = Project(tmp_path / "project", epochs=1, name="hidden")
    with environment(MLFLOW_TRACKING_URI=URL):
        done = project("train")
        assert done.code == 0, done.err
        assert done.json["mlflow_tracking_uri"] == "http://user:…@127.0.0.1:9"
        assert "127.0.0.1:9" in done.err
        synced = call("sync", str(project.config))
        shown = call("train", str(project.config))
    assert synced.code == 75
    for text in (done.out, done.err, synced.out, synced.err, shown.out, shown.err):
        assert SECRET not in text
    asked = {"flow_runs": {"name": {"like_": "hidden@"}}}
    assert httpx.post(f"{prefect_api}/flow_runs/filter", json=asked).json()
    servers = list(tmp_path_factory.getbasetemp().glob("prefect*"))
    assert any((folder / "prefect.db").exists() for folder in servers)
    assert left_in(tmp_path, *servers) == []


@pytest.mark.server
def test_nor_what_a_form_is_given_goes_from_prefect_into_the_store_or_mlflow(
    tmp_path, tracker, prefect_api
):
    from epochal.flows.flow_run.client import quiet_console, talking_to

    project = Project(tmp_path / "project", epochs=1)
    body = yaml.safe_load(project.config.read_text())
    given = {**body, "folder": str(project.folder), "tracking": {"uri": URL}}
    with talking_to(prefect_api), quiet_console():
        from epochal.flows.train import train

        with pytest.raises(ConfigError, match="holds a password"):
            train(RunConfig.model_validate(given))
    assert left_in(tmp_path) == []
    with sqlite3.connect(tracker.removeprefix("sqlite:///")) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)
