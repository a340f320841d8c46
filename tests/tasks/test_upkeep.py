"""`verify` and `gc`: all damage is found, nothing that is needed goes, the thinned stays done."""

import json
import uuid

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call, environment
from support.stores.faulty_s3 import Fault, faulty_s3
from support.stores.s3_server import BUCKET
from support.stores.stage_records import KEY, make_record

from epochal.data.errors import TrainingFailed
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.tasks import upkeep
from epochal.tasks.upkeep import find_garbage, remove_garbage


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Project(tmp_path / "project", epochs=4)


def gc(project, *options):
    done = call("gc", str(project.store), "--json", *options)
    assert done.code == 0, done.err
    return done.json


def files_of(project):
    return {path for path in project.store.rglob("*") if path.is_file()}


def test_an_intact_store_has_no_problem_and_no_garbage(project):
    BareRun(project.config)()
    done = call("verify", str(project.store), "--json")
    assert done.code == 0
    assert done.json["problems"] == []
    assert done.json["stages"] == 13
    assert gc(project)["bytes"] == 0
    assert "everything is needed" in call("gc", str(project.store)).out
    assert "every digest is right" in call("verify", str(project.store)).out


def test_every_damaged_file_is_found_and_nothing_is_changed(project):
    BareRun(project.config)()
    for path in sorted(files_of(project)):
        if path.parts[-2] == "fingerprints" or "attempts" in path.parts:
            continue
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        path.write_bytes(bytes(flipped))
        before = {one: one.read_bytes() for one in files_of(project)}
        done = call("verify", str(project.store), "--json")
        assert done.code == 75, path
        assert len(done.json["problems"]) >= 1, path
        assert {one: one.read_bytes() for one in files_of(project)} == before
        path.write_bytes(data)
    assert call("verify", str(project.store)).code == 0


def test_damaged_times_are_set_aside_when_asked(project):
    BareRun(project.config)()
    times = next(project.store.glob("stages/*/times.json"))
    times.write_bytes(b"x")
    assert call("verify", str(project.store), "--set-aside").code == 75
    assert not times.exists()
    assert call("verify", str(project.store)).code == 0


def test_a_record_goes_before_its_artifacts_so_that_no_kill_leaves_half_a_stage(monkeypatch):
    store = open_store(f"memory://{uuid.uuid4().hex}/store")
    stages = StageStore(store)
    stages.commit(make_record(stages))
    deleted = []
    monkeypatch.setattr(Store, "delete", lambda _, path: deleted.append(path))
    remove_garbage(store, find_garbage(store))
    assert len(deleted) == 3
    assert deleted[0] == f"stages/{KEY}/record.json"


def test_checkpoints_that_are_not_kept_go_and_the_run_stays_cached(project):
    sets = {"checkpoint__keep_last": 2, "checkpoint__keep_best": 0}
    whole = BareRun(project.config, **sets)()
    shown = gc(project)
    assert len(shown["thinned"]) == 2
    assert not shown["deleted"]
    assert len(gc(project)["thinned"]) == 2, "showing deletes nothing"
    assert gc(project, "--yes")["deleted"]
    assert gc(project)["bytes"] == 0
    again = BareRun(project.config, **sets)()
    assert all(one.cached for one in again.outcomes)
    assert again.weights == whole.weights
    assert call("verify", str(project.store)).code == 0


def test_a_thinned_checkpoint_that_is_needed_is_computed_again_to_the_same_bytes(project, tmp_path):
    sets = {"checkpoint__keep_last": 2, "checkpoint__keep_best": 0, "sampling__policy": "none"}
    BareRun(project.config, **sets)()
    gc(project, "--yes")
    step = "{kind: multi_step, milestones: [1]}"
    branch = BareRun(project.config, **{**sets, "schedule": step})()
    fresh = BareRun(
        project.config, **{**sets, "schedule": step, "store": f"file://{tmp_path}/fresh"}
    )()
    assert branch.digests == fresh.digests


def test_the_checkpoint_that_an_unfinished_epoch_starts_from_is_kept(project):
    sets = {"checkpoint__keep_last": 2, "checkpoint__keep_best": 0}
    with environment(FAIL_AT_CALL="30"), pytest.raises(TrainingFailed):
        BareRun(project.config, **sets)()
    gc(project, "--yes")
    rest = BareRun(project.config, **sets)()
    computed = [(one.stage.kind, one.stage.epoch) for one in rest.outcomes if not one.cached]
    assert computed[0] == ("train", 2)


def test_the_best_checkpoint_is_kept(project):
    sets = {"checkpoint__keep_last": 2, "checkpoint__keep_best": 4}
    BareRun(project.config, **sets)()
    assert gc(project)["thinned"] == {}


def test_stages_that_no_plan_has_are_garbage(project):
    BareRun(project.config, name="one")()
    BareRun(project.config, name="two", seed=9)()
    needed = set(project.store.glob("stages/*/*"))
    for path in project.store.glob("runs/two/plans/*"):
        path.unlink()
    shown = gc(project)
    assert len([path for path in shown["objects"] if path.endswith("record.json")]) == 13
    gc(project, "--yes")
    left = set(project.store.glob("stages/*/*"))
    assert left < needed
    assert BareRun(project.config, name="one")().outcomes[0].cached


def test_nothing_goes_while_a_plan_cannot_be_read(project):
    BareRun(project.config, name="one")()
    BareRun(project.config, name="two", seed=9)()
    (plan,) = project.store.glob("runs/two/plans/*")
    plan.write_text("{}")
    before = files_of(project)
    done = call("gc", str(project.store), "--yes")
    assert done.code == 2
    assert "'two' cannot be read" in done.err
    assert files_of(project) == before


def test_what_was_set_aside_is_garbage(project):
    BareRun(project.config)()
    (path,) = [
        one
        for one in project.store.glob("stages/*/*.safetensors")
        if one.name.startswith(_initial_model(project))
    ]
    path.write_bytes(b"x")
    BareRun(project.config)()
    shown = gc(project)
    assert [one.split("/")[0] for one in shown["objects"]] == ["damaged"]
    gc(project, "--yes")
    assert gc(project)["objects"] == {}


def _initial_model(project):
    for path in project.store.glob("stages/*/record.json"):
        body = json.loads(path.read_text())["body"]
        if body["stage"] == "initialise":
            return body["artifacts"]["model"]["sha256"]
    raise AssertionError


def test_a_damaged_plan_bars_gc_until_its_run_is_planned_again_and_then_no_stage_goes(project):
    other = BareRun(project.config, optimizer__args__lr=0.5)()
    whole = BareRun(project.config)()
    (plans,) = (project.store / "runs").glob("*/plans")
    first, second = sorted(plans.iterdir())
    first.write_bytes(first.read_bytes()[:400])
    refused = call("gc", str(project.store))
    assert refused.code == 2
    assert "cannot be read; see `epochal verify`" in refused.err
    assert BareRun(project.config)().weights == whole.weights
    assert sorted(plans.iterdir()) == [second]
    done = call("gc", str(project.store), "--json", "--yes")
    assert done.json["objects"] == {}
    assert "is a damaged plan: stages that no other plan has are kept" in done.err
    status = whole.session.stage_store.lookup(list(other.view.records))
    assert all(one.record is not None for one in status.values())
    (lost,) = (project.store / "damaged" / "runs").glob("*/plans/*")
    lost.unlink()
    assert gc(project, "--yes")["objects"]
    status = whole.session.stage_store.lookup(list(other.view.records))
    assert any(one.record is None for one in status.values())


def test_gc_shows_unfinished_uploads_and_aborts_the_old_ones_of_the_store(s3_endpoint, monkeypatch):
    import boto3

    prefix, client = uuid.uuid4().hex, boto3.client("s3")
    paths = {f"{prefix}/stages/{KEY}/a.bin", f"{prefix}/notes/b", f"{prefix}2/stages/{KEY}/c"}
    for path in paths:
        place = {"Bucket": BUCKET, "Key": path}
        upload = client.create_multipart_upload(**place)["UploadId"]
        client.upload_part(UploadId=upload, PartNumber=1, Body=b"1", **place)

    def left():
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
        return {upload["Key"] for upload in uploads}

    url = f"s3://{BUCKET}/{prefix}"
    assert call("gc", url, "--yes", "--json").json["uploads"] == []  # they may be running
    monkeypatch.setattr(upkeep, "UPLOAD_QUIET_S", -60.0)
    done = call("gc", url, "--json")
    assert [upload["path"] for upload in done.json["uploads"]] == [f"stages/{KEY}/a.bin"]
    assert f"upload of stages/{KEY}/a.bin" in call("gc", url).out.replace("\n", "")
    assert left() == paths
    assert call("gc", url, "--yes").code == 0
    assert left() == paths - {f"{prefix}/stages/{KEY}/a.bin"}


def test_gc_goes_on_where_it_may_not_list_uploads(s3_endpoint):
    with faulty_s3(s3_endpoint) as proxy:
        proxy.faults = [Fault("get", "403 AccessDenied", count=9)]
        done = call("gc", f"s3://{BUCKET}/{uuid.uuid4().hex}", "--json")
    assert done.code == 0
    assert done.json["uploads"] == []
    assert "unfinished uploads are not looked at" in done.err


def test_gc_of_a_bucket_that_is_missing_says_so(s3_endpoint):
    done = call("gc", "s3://no-such-bucket/x")
    assert done.code == 0
    assert "create the bucket" in " ".join(done.err.split())
