"""Starting from weights that are there: found, checked, hashed; never silently from scratch."""

import pytest
import torch
from safetensors.torch import load_file
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from support.stores.s3_server import BUCKET

from epochal.data.errors import ConfigError, NotFound, TrainingFailed
from epochal.tasks.checkpoints.warm_start import load_weights, opened_weights
from epochal.tasks.runs.warm_start import find_weights, start_sha256


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})


@pytest.fixture
def trained(project):
    return BareRun(project.config, name="first", metrics="{best: loss, validation: [loss]}")()


def exported(project, out="weights.safetensors", epoch="1"):
    path = project.folder / out
    done = call("export", f"{project.store}/first", "--epoch", epoch, "--out", str(path))
    assert done.code == 0, done.err
    return path


def initial(run):
    record = run.view.record_of(run.view.stage("initialise", None))
    with run.session.stage_store.fetch_artifact(record, "model") as path:
        return {name: one.clone() for name, one in load_file(path).items()}


def test_a_run_and_its_exported_file_give_the_same_key_and_weights(project, trained):
    path = exported(project)
    runs = [
        BareRun(project.config, name=f"second-{number}", start=f"{{from: '{one}'}}")
        for number, one in enumerate(
            ["./weights.safetensors", str(path), "first", "first@1:1", f"{project.store}/first:1"]
        )
    ]
    assert len({run.view.stages[0].key for run in runs}) == 1
    assert runs[0].view.stages[0].key != trained.view.stages[0].key
    runs[0]()
    for name, one in load_file(path).items():
        assert torch.equal(initial(runs[0])[name], one)
    assert runs[0].weights != trained.weights


def test_best_and_earlier_epochs_are_found(project, trained):
    config = BareRun(project.config, name="second", start="{from: 'first:best'}").session.config
    record = {(one.stage, one.epoch): one for one in trained.view.records.values()}
    losses = [record["validate", epoch].values["metrics"]["loss"] for epoch in (0, 1)]
    best = record["train", losses.index(min(losses))]
    assert start_sha256(config) == best.artifacts["model"].sha256
    earlier = BareRun(project.config, name="third", start="{from: 'first:0'}").session.config
    assert start_sha256(earlier) == record["train", 0].artifacts["model"].sha256


def test_a_checkpoint_that_gc_has_removed_is_named(project):
    BareRun(project.config, name="first", epochs=3, checkpoint="{keep_last: 2, keep_best: 0}")()
    assert call("gc", str(project.store), "--yes").code == 0
    with pytest.raises(NotFound, match=r"first@1, epoch 0, was removed by `epochal gc`"):
        BareRun(project.config, name="second", start="{from: 'first:0'}")


def test_weights_that_have_changed_since_the_keys_were_made_are_not_loaded(project, trained):
    run = BareRun(project.config, name="second", start="{from: first}")
    weights, config = find_weights(run.session.config), run.session.config
    with opened_weights(weights, sha256=start_sha256(config)) as path:
        load_weights(path, weights.what, config, run.work.ready_components())
    with (
        pytest.raises(TrainingFailed, match="has changed since this command began"),
        opened_weights(weights, sha256="0" * 64),
    ):
        pass


def test_another_content_is_another_run_and_another_place_is_not(project, trained):
    exported(project)
    key = BareRun(project.config, start="{from: ./weights.safetensors}").view.stages[0].key
    (project.folder / "weights.safetensors").rename(project.folder / "moved.safetensors")
    moved = BareRun(project.config, start="{from: ./moved.safetensors}").view.stages[0].key
    exported(project, epoch="0")
    other = BareRun(project.config, start="{from: ./weights.safetensors}").view.stages[0].key
    assert (moved == key, other == key) == (True, False)
    lenient = "{from: ./moved.safetensors, strict: false}"
    assert BareRun(project.config, start=lenient).view.stages[0].key != key


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("./gone.safetensors", "start.from: there is no file"),
        ("nobody", "has no run 'nobody'; it has: first"),
        ("first:9", "first@1 has no checkpoint of epoch 9; it has epochs 0 to 1"),
        ("first@7", "has no run 'first@7'"),
        ("https://host/w.safetensors", "download it"),
        ("./weights.pt", "is a pickle, which may run code when it is read; convert it once"),
        ("./weights.bin", "is a pickle"),
    ],
)
def test_a_wrong_name_is_an_error_before_anything_starts(project, trained, named, problem):
    for command in ("plan", "train"):
        done = project(command, start=f"{{from: '{named}'}}")
        assert done.code == 2
        assert problem in " ".join(done.err.split())


def test_weights_that_do_not_fit_are_an_error_before_anything_starts(project, trained):
    exported(project)
    with pytest.raises(ConfigError, match=r"weights.safetensors: body.0.bias: the file has"):
        BareRun(project.config, start="{from: ./weights.safetensors}", model__args="{width: 5}")


def test_a_file_that_is_no_safetensors_is_an_error(project):
    (project.folder / "w.safetensors").write_bytes(b"no header at all")
    with pytest.raises(ConfigError, match="is no safetensors file"):
        BareRun(project.config, start="{from: ./w.safetensors}")


def test_lists_beside_strict_false_are_a_config_error(project):
    done = project("plan", start="{from: first, strict: false, allow_missing: ['head.*']}")
    assert done.code == 2
    assert "strict: false allows every difference" in done.err


def test_a_config_with_a_start_is_written_as_it_is_read(project, trained):
    config = BareRun(project.config, name="second", start="{from: first}").session.config
    assert config.model_dump(mode="json")["start"]["from"] == "first"
    assert type(config).model_validate(config.model_dump(mode="json")) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    done = project("plan", start="{form: first}")
    assert "did you mean 'from'" in done.err


def test_an_average_begins_with_the_loaded_weights(project, trained):
    path = exported(project)
    run = BareRun(
        project.config, name="second", start="{from: ./weights.safetensors}", ema="{decay: 0.999}"
    )
    loaded = load_file(path)
    run.run.run_stage(run.view.stages[0])
    average = run.work.ready_components().state.ema
    for name, one in average.tensors.items():
        assert torch.equal(one, loaded[name]), name


def test_a_file_of_an_object_store_is_read(project, s3_endpoint, trained):
    import boto3

    path = exported(project)
    boto3.client("s3", endpoint_url=s3_endpoint).upload_file(str(path), BUCKET, "x/w.safetensors")
    there = BareRun(project.config, start=f"{{from: 's3://{BUCKET}/x/w.safetensors'}}")
    here = BareRun(project.config, start="{from: ./weights.safetensors}")
    assert there.view.stages[0].key == here.view.stages[0].key
    with pytest.raises(NotFound, match="there is no file s3://"):
        BareRun(project.config, start=f"{{from: 's3://{BUCKET}/x/gone.safetensors'}}")
