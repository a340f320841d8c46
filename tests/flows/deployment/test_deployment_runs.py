"""Runs that Prefect's UI starts: through the worker, cached when repeated, retried."""

import httpx
import pytest
from support.runs.machine import wait_for

pytestmark = pytest.mark.server

STAGES = {
    "initialise",
    *(f"{kind} · epoch {epoch}" for kind in ("train", "validate", "mine") for epoch in range(4)),
}


def states(deployed, run, *, attempt=1):
    """Task → its state in that attempt of a run that is to complete."""
    done = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert done["state_type"] == "COMPLETED", (done["state"]["message"], deployed.logs(run))
    return wait_for(  # the server has the tasks a moment later
        lambda: (
            set(found := deployed.tasks(run, attempt=attempt)) == STAGES
            and not {"Pending", "Running"} & set(found.values())
            and found
        )
    )


def test_a_run_from_the_ui_completes_and_the_next_one_is_cached(deployed):
    assert set(states(deployed, deployed.complete_run).values()) <= {"Completed", "Cached"}
    named = deployed.get(f"flow_runs/{deployed.complete_run}")
    assert named["name"] == "blobs@1 · epochs 4 · lr=0.01"
    assert {"blobs", "blobs@1"} <= set(named["tags"])
    again = deployed.run(called="my-run")
    assert states(deployed, again) == dict.fromkeys(STAGES, "Cached")
    assert deployed.get(f"flow_runs/{again}")["name"] == "my-run"
    assert (deployed.project.store / "runs").is_dir()


def test_the_log_of_a_run_has_its_numbers(deployed):
    said = "validate · epoch 3: accuracy 0."
    assert wait_for(lambda: [one for one in deployed.logs(deployed.complete_run) if said in one])


def test_the_mlflow_server_beside_it_has_the_curves(deployed):
    assert deployed.complete_run

    def search(what, body):
        answer = httpx.post(f"{deployed.mlflow}/api/2.0/mlflow/{what}/search", json=body)
        return answer.raise_for_status().json()[what]

    found = {one["name"]: one for one in search("experiments", {"max_results": 10})}
    ids = [found["tests"]["experiment_id"]]
    runs = {one["info"]["run_name"]: one for one in search("runs", {"experiment_ids": ids})}
    assert runs["blobs"]["info"]["status"] == "FINISHED"
    assert "validation/accuracy" in {one["key"] for one in runs["blobs"]["data"]["metrics"]}


@pytest.mark.slow
def test_a_run_that_names_other_code_deep_in_its_args_fails_before_anything_is_imported(deployed):
    deployed.project.write("planted.py", "open('was_imported', 'w')")
    model = {"target": "model:Net", "args": {"width": {"target": "planted:boom", "args": {}}}}
    run = deployed.run(name="planted", model=model)
    failed = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    assert failed["state_type"] == "FAILED"
    assert "model.args.width.target: 'planted:boom' is not deployed" in failed["state"]["message"]
    assert not (deployed.project.folder / "was_imported").exists()


def test_retry_after_a_failure_goes_on_where_it_broke(deployed):
    broken = deployed.project.folder / "broken"
    broken.write_text("38")
    try:
        run = deployed.run(name="retried", seed=5)
        failed = deployed.wait(run, "COMPLETED", "FAILED", "CRASHED")
    finally:
        broken.unlink()
    assert failed["state_type"] == "FAILED"
    assert "train · epoch 3" in failed["state"]["message"]
    assert "the machine room is on fire" in failed["state"]["message"]
    deployed.retry(run)
    wait_for(lambda: deployed.get(f"flow_runs/{run}")["run_count"] == 2)
    after = states(deployed, run, attempt=2)
    done = {name for name, state in after.items() if state == "Cached"}
    assert done == {name for name in STAGES if not name.endswith("epoch 3")}
