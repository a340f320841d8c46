"""`epochal deploy`: what Prefect's server holds afterwards, and that its schedule fires."""

import json

import httpx
import pytest
import yaml
from support.runs.machine import free_port, wait_for
from support.runs.project import CONFIG, Project, call

from epochal.flows.deployment import cron
from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig

pytestmark = pytest.mark.server


@pytest.fixture
def project(tmp_path, home, prefect_api):
    """A project whose run has a name of its own: all tests share the server."""
    return Project(tmp_path / "project", name=f"run-{tmp_path.name}"[:100])


@pytest.fixture
def unserved(tmp_path, home, monkeypatch):
    """A project where any use of a server would fail."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    return Project(tmp_path / "project")


def deploy(project, *arguments, **sets):
    done = project("deploy", *arguments, **sets)
    assert done.code == 0, done.err
    return done.json


def held(api, deployed):
    return httpx.get(f"{api}/deployments/{deployed['deployment_id']}").json()


def scheduled_runs(api, deployed):
    found = httpx.post(
        f"{api}/flow_runs/filter",
        json={
            "flow_runs": {
                "deployment_id": {"any_": [deployed["deployment_id"]]},
                "state": {"type": {"any_": ["SCHEDULED"]}},
            }
        },
    )
    return found.json()


def test_the_deployment_holds_the_whole_config_and_where_it_runs(project, prefect_api):
    deployed = deploy(project, epochs=7)
    holds = held(prefect_api, deployed)
    config = load_config(project.config, overrides=["epochs=7"])
    assert RunConfig.model_validate(holds["parameters"]["config"]) == config
    assert holds["parameters"]["config"]["folder"] == str(project.folder)
    assert holds["entrypoint"] == "epochal.flows.train.train"
    assert holds["work_pool_name"] == deployed["work_pool"] == "epochal"
    assert holds["job_variables"]["env"]["DO_NOT_TRACK"] == "true"
    assert holds["global_concurrency_limit"]["limit"] == 1
    assert holds["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert holds["schedules"] == []
    pool = httpx.get(f"{prefect_api}/work_pools/epochal").json()
    assert pool["type"] == "process"
    assert "working_dir" in json.dumps(pool["base_job_template"])


def test_the_ui_gets_types_bounds_choices_defaults_and_help(project, prefect_api):
    schema = held(prefect_api, deploy(project))["parameter_openapi_schema"]
    parts = schema["definitions"]
    run = parts["RunConfig"]["properties"]
    assert (run["epochs"]["type"], run["epochs"]["minimum"]) == ("integer", 1)
    assert run["epochs"]["description"]
    assert run["reproducibility"]["enum"] == ["warn", "strict"]
    assert run["device"]["default"] == "auto"
    assert "folder" in run
    assert parts["RunConfig"]["additionalProperties"] is False
    for name, part in parts.items():
        for field, holds in part.get("properties", {}).items():
            assert holds.get("description") or "const" in holds or "$ref" in holds, (name, field)


def test_the_server_refuses_a_run_whose_parameters_are_out_of_bounds(project, prefect_api):
    deployed = deploy(project)
    config = held(prefect_api, deployed)["parameters"]["config"]
    answer = httpx.post(
        f"{prefect_api}/deployments/{deployed['deployment_id']}/create_flow_run",
        json={"parameters": {"config": {**config, "epochs": 0}}},
    )
    assert answer.status_code in {409, 422}
    assert "epochs" in answer.text


def test_the_server_refuses_a_run_that_names_code_which_is_not_deployed(project, prefect_api):
    deployed = deploy(project, targets_allowed="[torch.nn:L1Loss]")
    config = held(prefect_api, deployed)["parameters"]["config"]
    asking = f"{prefect_api}/deployments/{deployed['deployment_id']}/create_flow_run"

    def create(**changes):
        def answer():
            given = {"parameters": {"config": {**config, **changes}}}
            found = httpx.post(asking, json=given, timeout=30)
            # SQLite is locked for a moment: Prefect's own client asks again, too.
            return None if found.status_code == httpx.codes.SERVICE_UNAVAILABLE else found

        return wait_for(answer)

    evil = {"target": "os:system", "args": {"command": "touch evil"}}
    for field in ("train_data", "validation_data", "model", "loss", "step"):
        answer = create(**{field: evil})
        assert answer.status_code in {409, 422}, field
        assert "os:system" in answer.text
    assert create(loss={"target": "torch.nn:L1Loss"}).status_code == 201


def test_the_object_of_json_is_the_last_line(project, prefect_api):
    done = project("deploy", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    (line,) = done.out.splitlines()
    body = json.loads(line)
    assert list(body) == [
        "run", "deployment", "deployment_id", "created", "schedule", "work_pool", "worker",
        "prefect_api", "url",
    ]  # fmt: skip
    assert body["deployment"] == f"train/{body['run']}"
    assert body["created"] is True
    assert body["worker"] is False
    assert body["url"].startswith(prefect_api.removesuffix("/api"))
    assert body["url"].endswith(f"/deployments/deployment/{body['deployment_id']}")
    assert body["schedule"]["timezone"] == "Europe/Berlin"
    assert body["schedule"]["next_run"][11:16] == "02:00"


def test_people_are_told_the_page_the_schedule_and_that_a_worker_is_missing(project):
    done = call("deploy", str(project.config), "--cron", "0 2 * * *", "--paused")
    assert done.code == 0, done.err
    for text in ("created", "/deployments/deployment/", "0 2 * * *", "paused", "epochal up"):
        assert text in done.out
    again = call("deploy", str(project.config))
    for text in ("updated", "0 2 * * *", "is removed"):
        assert text in again.out


def test_an_active_schedule_really_makes_runs_and_a_redeployment_replaces_or_ends_it(
    project, prefect_api
):
    deployed = deploy(project, "--cron", "*/10 * * * *")
    # A server whose schedules do not fire looks healthy; only the runs tell.
    runs = wait_for(lambda: scheduled_runs(prefect_api, deployed), timeout_s=90)
    assert runs[0]["parameters"]["config"]["folder"] == str(project.folder)
    again = deploy(project, "--cron", "30 4 * * *", "--timezone", "Asia/Tokyo")
    assert again["deployment_id"] == deployed["deployment_id"]
    assert again["created"] is False
    (schedule,) = held(prefect_api, deployed)["schedules"]
    assert schedule["active"] is True
    assert schedule["schedule"]["cron"] == "30 4 * * *"
    assert schedule["schedule"]["timezone"] == "Asia/Tokyo"
    # The server makes runs in a loop of its own: none of them may come behind what ends them.
    assert wait_for(lambda: scheduled_runs(prefect_api, deployed), timeout_s=90)
    last = deploy(project)
    assert last["deployment_id"] == deployed["deployment_id"]
    assert held(prefect_api, deployed)["schedules"] == []
    assert scheduled_runs(prefect_api, deployed) == []


def test_a_paused_schedule_makes_no_runs_and_deploying_again_resumes_it(project, prefect_api):
    deployed = deploy(project, "--cron", "*/10 * * * *", "--paused")
    assert held(prefect_api, deployed)["paused"] is True
    assert scheduled_runs(prefect_api, deployed) == []
    assert held(prefect_api, deploy(project, "--cron", "*/10 * * * *"))["paused"] is False
    deploy(project)


def test_deploying_again_changes_the_parameters_of_the_same_deployment(project, prefect_api):
    first = deploy(project, epochs=3)
    second = deploy(project, epochs=5)
    assert first["deployment_id"] == second["deployment_id"]
    assert held(prefect_api, first)["parameters"]["config"]["epochs"] == 5


def test_a_name_makes_another_deployment_of_the_same_run(project):
    plain, named = deploy(project), deploy(project, "--name", "nightly of it")
    assert plain["deployment_id"] != named["deployment_id"]
    assert named["deployment"] == "train/nightly of it"
    assert plain["run"] == named["run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "abc"], "--cron: found 'abc'; expected minute, hour, day"),
        (["--cron", "99 * * * *"], "--cron: found '99 * * * *'"),
        (["--cron", "0 2 * * * *"], "--cron: found '0 2 * * * *'"),
        (["--cron", "0 0 31 2 *"], "never comes"),
        (["--cron", ""], "--cron: found ''"),
        (["--cron", "@daily", "--timezone", "Europe/Belin"], "did you mean 'Europe/Berlin'?"),
        (["--timezone", "UTC"], "--timezone: it is for a schedule"),
        (["--paused"], "--paused: it is for a schedule"),
        (["--name", "a/b"], "--name: found 'a/b'"),
        (["--set", "epoch=3"], "epoch: there is no such key; did you mean 'epochs'?"),
        (["--set", "epochs=0"], "epochs: found 0"),
        (["--set", "store=runs"], "store"),
        (["--bogus"], "No such option"),
    ],
)
def test_what_is_wrong_is_named_before_any_server_is_asked(unserved, arguments, said):
    done = call("deploy", str(unserved.config), *arguments)
    assert done.code == 2, done.err
    assert said in done.err
    assert done.out == ""


def test_a_config_that_is_no_config_is_named(unserved, tmp_path):
    assert "there is no such file" in call("deploy", str(tmp_path / "nothing.yaml")).err
    unserved.config.write_text(yaml.safe_dump({**CONFIG, "loader": {"batch_siez": 4}}))
    done = unserved("deploy")
    assert done.code == 2
    assert "did you mean 'batch_size'?" in done.err


def test_a_source_file_that_cannot_be_read_is_named(unserved):
    unserved.write("model.py", "class Net(:")
    done = unserved("deploy")
    assert done.code == 2
    assert "model.py" in done.err


def test_a_server_that_is_away_is_named(unserved):
    done = unserved("deploy")
    assert done.code == 75
    assert "PREFECT_API_URL" in done.err


def test_the_time_zone_is_that_of_the_machine(monkeypatch):
    monkeypatch.setenv("TZ", ":Asia/Tokyo")
    assert cron.local_timezone() == "Asia/Tokyo"
    assert cron.check_schedule("30 4 * * *", None).timezone == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "no/zone")
    assert cron.local_timezone()


def test_schedules_of_every_day_have_names_too():
    found = cron.check_schedule("@daily", "UTC")
    assert (found.next_run.hour, found.next_run.minute) == (0, 0)
