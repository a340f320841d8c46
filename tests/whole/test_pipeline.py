"""The whole pipeline: what is done is never done twice, and what is redone is the same bytes."""

import itertools
import json
import shutil
import time
from pathlib import Path

import duckdb
import httpx
import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.runs.machine import wait_for
from support.runs.project import Project, call, environment

pytestmark = pytest.mark.server

KINDS = {"initialise", "train", "validate", "mine"}


@pytest.fixture
def project(tmp_path, tracker, prefect_api):
    return Project(tmp_path / "project")


def train(project, **sets):
    done = project("train", **sets)
    assert done.code == 0, done.err
    return done


def metric_rows(run_id):
    client = mlflow.MlflowClient()
    return {
        key: [
            (one.step, one.timestamp, one.value) for one in client.get_metric_history(run_id, key)
        ]
        for key in client.get_run(run_id).data.metrics
    }


def files_of(store):
    return sorted(path for path in Path(store).rglob("*") if path.is_file())


def test_a_run_gives_the_object_of_the_contract(project):
    done = train(project)
    result = done.json
    assert list(result) == [
        "run", "mlflow_run_id", "mlflow_tracking_uri", "weights_sha256", "metrics", "stages",
    ]  # fmt: skip
    assert result["run"] == "blobs"
    assert [(one["stage"], one["epoch"]) for one in result["stages"]] == [
        ("initialise", None),
        *((kind, epoch) for epoch in range(4) for kind in ("train", "validate", "mine")),
    ]
    assert not any(one["cached"] for one in result["stages"])
    assert set(result["stages"][0]) == {
        "stage", "epoch", "key", "cached", "resumed_at", "seconds",
    }  # fmt: skip
    assert 0.5 < result["metrics"]["validation/accuracy"] <= 1
    assert all(
        value is None or isinstance(value, int | float) for value in result["metrics"].values()
    )


def test_a_second_run_computes_nothing_and_writes_nothing_to_mlflow(project):
    first = train(project)
    rows = metric_rows(first.json["mlflow_run_id"])
    files = {path: path.stat().st_mtime_ns for path in files_of(project.store)}
    second = train(project)
    assert all(one["cached"] for one in second.json["stages"])
    assert second.json["weights_sha256"] == first.json["weights_sha256"]
    assert second.json["mlflow_run_id"] == first.json["mlflow_run_id"]
    assert metric_rows(first.json["mlflow_run_id"]) == rows
    assert len(mlflow.MlflowClient().search_runs(_experiments())) == 1
    assert {path: path.stat().st_mtime_ns for path in files_of(project.store)} == files


def _experiments():
    return [one.experiment_id for one in mlflow.MlflowClient().search_experiments()]


def test_mlflow_holds_a_gradient_norm_for_every_update(project):
    done = train(project)
    rows = metric_rows(done.json["mlflow_run_id"])
    updates = _records(project, "train")
    total = sum(record["values"]["updates"] for record in updates.values())
    for key in ("gradients/norm", "gradients/norm_clipped", "train/loss", "train/learning_rate",
                "gradients/norm/body", "gradients/norm/head"):  # fmt: skip
        assert [step for step, _, _ in rows[key]] == list(range(1, total + 1)), key
    assert max(value for _, _, value in rows["gradients/norm_clipped"]) <= 1.0 + 1e-5
    assert len(rows["validation/accuracy"]) == 4
    assert len(rows["sampling/kept"]) == 4


def _records(project, kind):
    found = {}
    for path in project.store.glob("stages/*/record.json"):
        body = json.loads(path.read_text())["body"]
        if body["stage"] == kind:
            found[body["epoch"]] = body
    return found


def test_the_next_epoch_trained_on_exactly_the_rows_that_the_table_keeps(project):
    train(project, epochs=6)
    listed = call("samples", str(project.config), "--set", "epochs=6", "--json").json["tables"]
    assert [one["epoch"] for one in listed] == list(range(6))
    skipped = 0
    for one, following in itertools.pairwise(listed):
        kept = duckdb.sql(
            f"select sample_id from '{one['samples']}' where keep order by 1"
        ).fetchnumpy()
        trained = pq.read_table(following["observations"]).column("sample_id").to_numpy()
        assert np.array_equal(kept["sample_id"], trained)
        skipped += 180 - len(trained)
    assert skipped > 0


def test_a_failure_keeps_what_was_done_and_the_rerun_is_bitwise_the_same(project, tmp_path):
    whole = train(Project(tmp_path / "unbroken"))
    with environment(FAIL_AT_CALL="38"):
        broken = project("train")
    assert broken.code == 3
    assert "the machine room is on fire" in broken.err
    assert "train · epoch 3" in broken.err
    mended = train(project)
    assert {epoch for _, epoch in mended.stages(cached=True)} == {None, 0, 1, 2}
    assert mended.json["weights_sha256"] == whole.json["weights_sha256"]
    assert len(mlflow.MlflowClient().search_runs(_experiments())) <= 2


def test_a_longer_run_under_a_constant_rate_recomputes_no_shared_epoch(project):
    first = train(project, sampling__policy="none")
    longer = train(project, sampling__policy="none", epochs=6)
    assert {epoch for _, epoch in longer.stages(cached=False)} == {4, 5}
    assert longer.json["mlflow_run_id"] == first.json["mlflow_run_id"]


@pytest.mark.slow
def test_a_longer_run_with_easy_skip_recomputes_from_the_old_final_phase_on(project):
    train(project)
    foreseen = project("plan", epochs=6).json
    first = next(one for one in foreseen["stages"] if not one["done"])
    assert (first["stage"], first["epoch"]) == ("mine", 2)
    longer = train(project, epochs=6)
    would_run = [one["key"] for one in foreseen["stages"] if not one["done"]]
    assert would_run == [one["key"] for one in longer.json["stages"] if not one["cached"]]


def test_a_branch_reuses_the_trunk_and_is_a_new_generation(project):
    schedule = "{{kind: multi_step, milestones: [2], factor: {}}}"
    trunk = train(project, sampling__policy="none", schedule=schedule.format(0.1))
    branch = train(project, sampling__policy="none", schedule=schedule.format(0.5))
    assert {epoch for _, epoch in branch.stages(cached=True)} == {None, 0, 1}
    assert branch.json["mlflow_run_id"] != trunk.json["mlflow_run_id"]
    tags = mlflow.MlflowClient().get_run(branch.json["mlflow_run_id"]).data.tags
    assert tags["epochal.branched_from"] == "blobs@1"
    assert tags["epochal.shared_epochs"] == "2"
    assert len(metric_rows(branch.json["mlflow_run_id"])["validation/accuracy"]) == 4
    back = project("plan", sampling__policy="none", schedule=schedule.format(0.1)).json
    assert back["would_run"] == 0
    other = project("plan", sampling__policy="none", schedule=schedule.format(0.2)).json
    changed = next(one for one in other["stages"] if not one["done"])
    assert (changed["stage"], changed["epoch"]) == ("train", 2)


@pytest.mark.slow
@pytest.mark.parametrize("every", [23, 1])
def test_any_file_of_the_store_may_be_lost_or_damaged(project, every):
    first = train(project)
    for number, path in enumerate(files_of(project.store)[::every]):
        if not path.exists():
            continue
        data = path.read_bytes()
        if number % 2:
            path.unlink()
        else:
            flipped = bytearray(data)
            flipped[len(data) // 2] ^= 1
            path.write_bytes(bytes(flipped))
        again = project("train")
        assert again.code == 0, (path, again.err)
        assert again.json["weights_sha256"] == first.json["weights_sha256"], path
        relative = path.relative_to(project.store)
        if number % 2 == 0 and relative.parts[0] == "stages" and len(path.stem) == 64:
            assert again.stages(cached=False) == [], path  # nobody has loaded it
            assert call("verify", str(project.store), "--set-aside").code == 75, path
            again = project("train")
        by_clock = relative.name.startswith(("times", "goodput"))
        if relative.parts[0] == "stages" and not by_clock:
            assert path.read_bytes() == data, path
            assert len(again.stages(cached=False)) == 1, path
        else:
            assert again.stages(cached=False) == [], path


def test_a_damaged_table_that_only_mlflow_asks_for_is_made_again_by_the_next_command(project):
    first = train(project, epochs=2)
    key = next(
        one["key"] for one in first.json["stages"] if (one["stage"], one["epoch"]) == ("train", 1)
    )
    (marker,) = project.store.glob(f"runs/*/delivered/*/{key}.*")
    marker.unlink()  # as after a command that MLflow did not answer
    record = json.loads((project.store / "stages" / key / "record.json").read_text())["body"]
    table = project.store / "stages" / key / record["artifacts"]["updates"]["file"]
    data = table.read_bytes()
    table.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    done = project("train", epochs=2)
    assert done.code == 75
    assert "updates" in done.err
    assert "run the same command to go on" in " ".join(done.err.split())
    again = train(project, epochs=2)
    assert again.stages(cached=False) == [("train", 1)]
    assert table.read_bytes() == data
    assert list(project.store.glob(f"runs/*/delivered/*/{key}.*"))


@pytest.mark.slow
def test_a_store_copied_elsewhere_is_just_as_cached(project, tmp_path):
    first = train(project)
    other = Project(tmp_path / "other")
    shutil.copytree(project.store, other.store)
    second = train(other)
    assert all(one["cached"] for one in second.json["stages"])
    assert second.json["weights_sha256"] == first.json["weights_sha256"]


def test_exported_weights_have_the_digest_of_the_result(project, tmp_path):
    import hashlib

    from safetensors.torch import load_file

    first = train(project)
    out = tmp_path / "model.safetensors"
    assert call("export", str(project.config), "--out", str(out)).code == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() == first.json["weights_sha256"]
    assert set(load_file(out)) >= {"head.weight", "body.1.running_mean"}


def test_prefect_shows_each_stage_and_what_was_cached(project, prefect_api):
    import httpx

    train(project, name="shown")
    train(project, name="shown")
    wanted = {
        "sort": "EXPECTED_START_TIME_ASC",
        "flow_runs": {"name": {"like_": "shown@"}},
    }

    def states():
        found = {}
        for one in httpx.post(f"{prefect_api}/task_runs/filter", json=wanted).json():
            found.setdefault(one["name"], []).append(one["state_name"])
        return found

    expected = {"initialise": ["Completed", "Cached"]} | {
        f"{kind} · epoch {epoch}": ["Completed", "Cached"]
        for kind in ("train", "validate", "mine") for epoch in range(4)
    }  # fmt: skip
    deadline = time.monotonic() + 60  # the server takes task states in from its queue of events
    while states() != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert states() == expected


@pytest.mark.slow
def test_workers_change_no_number_and_end_well_beside_prefects_threads(project):
    project.write(
        "items.py",
        """
        from torch.utils.data import Dataset
        from blobs import blobs

        class Items(Dataset):
            def __init__(self, split):
                self.data = blobs(split)
            def __len__(self):
                return len(self.data)
            def __getitem__(self, row):
                x, y = self.data[row]
                return {"input": x, "target": y, "sample_id": 5 * row}
        """,
    )
    data = {
        f"{name}_data": f"{{target: 'items:Items', args: {{split: {name}}}}}"
        for name in ("train", "validation")
    }
    first = train(project, epochs=2, store="./one", **data)
    second = train(project, epochs=2, store="./other", loader__workers=2, **data)
    assert second.json["weights_sha256"] == first.json["weights_sha256"]
    assert not second.stages(cached=True)


def test_what_mlflow_missed_is_delivered_by_sync_once(project, tracker):
    with environment(MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        away = train(project)
    assert away.json["mlflow_run_id"] is None
    assert "Nothing is lost" in away.err
    synced = call("sync", str(project.config), "--json")
    assert synced.code == 0, synced.err
    assert synced.json["problem"] is None
    rows = metric_rows(synced.json["mlflow_run_id"])
    assert [step for step, _, _ in rows["gradients/norm"]] == list(
        range(1, sum(one["values"]["updates"] for one in _records(project, "train").values()) + 1)
    )
    assert mlflow.MlflowClient().get_run(synced.json["mlflow_run_id"]).info.status == "FINISHED"
    assert call("sync", str(project.config)).code == 0
    assert metric_rows(synced.json["mlflow_run_id"]) == rows
    again = train(project)
    assert again.json["mlflow_run_id"] == synced.json["mlflow_run_id"]
    assert metric_rows(synced.json["mlflow_run_id"]) == rows


def test_sync_says_that_mlflow_is_away(project, tracker):
    train(project)
    with environment(MLFLOW_TRACKING_URI="http://127.0.0.1:9"):
        done = call("sync", str(project.config))
    assert done.code == 75
    assert "127.0.0.1:9" in done.err


def test_prefect_draws_the_stages_parents_and_no_other_edge(project, prefect_api):
    for name in ("drawn", "cached"):
        train(project, name=name, epochs=2)
        asked = {"flow_runs": {"name": {"like_": f"{name}@"}}}

        def tasks_of_run(asked=asked):
            found = httpx.post(f"{prefect_api}/task_runs/filter", json=asked).json()
            return found if len(found) == 7 else None

        tasks = wait_for(tasks_of_run)  # the server takes them in from its queue
        label = {task["id"]: task["name"] for task in tasks}
        edges = {
            task["name"]: {label[parent["id"]] for parent in task["task_inputs"]["parents"]}
            for task in tasks
        }
        assert edges == {
            "initialise": set(),
            "train · epoch 0": {"initialise"},
            "validate · epoch 0": {"train · epoch 0"},
            "mine · epoch 0": {"train · epoch 0"},
            "train · epoch 1": {"train · epoch 0", "mine · epoch 0"},
            "validate · epoch 1": {"train · epoch 1"},
            "mine · epoch 1": {"train · epoch 1", "mine · epoch 0"},
        }
