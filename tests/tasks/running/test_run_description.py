"""What MLflow shows of a run beside its numbers: parameters, difference to its parent, origin."""

import json
import subprocess

import pytest
import yaml
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.config.load import load_config
from epochal.tasks.config.run import RunConfig
from epochal.tasks.running.lifecycle import active_run
from epochal.tasks.running.run_description import (
    about_run,
    changes,
    config_files,
    git_tags,
    parameters,
    title,
)
from epochal.tasks.tracking.connection import connect


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=1, sampling={"policy": "none"})


def test_parameters_are_the_fields_that_are_set_and_those_that_runs_are_compared_by(project):
    config = load_config(
        project.config, overrides=["schedule={kind: cosine}", "gradients.shards=1"]
    )
    shown = parameters(config)
    assert shown["optimizer.args.lr"] == "0.01"
    assert shown["schedule.kind"] == "cosine"
    assert shown["gradients.shards"] == "1"  # as usual, and written all the same
    assert {"seed", "loader.batch_size", "sampling.policy"} <= shown.keys()
    assert len(shown) < 20
    assert not {"name", "epochs", "store", "folder", "mixing", "loader.workers"} & shown.keys()


def test_of_a_form_that_fills_in_every_field_only_other_values_are_parameters(project):
    config = load_config(project.config)
    filled = RunConfig.model_validate(config.model_dump(mode="json"))
    assert parameters(filled).items() <= parameters(config).items()
    assert "gradients.clip_norm" in parameters(filled)


def test_the_config_goes_along_as_it_was_set_and_trains_the_same(project):
    config = load_config(project.config)
    files = config_files(config)
    again = project.folder / "again.yaml"
    again.write_bytes(files["config.yaml"])
    assert load_config(again) == config
    assert "folder" not in yaml.safe_load(files["config.yaml"])
    assert RunConfig.model_validate(yaml.safe_load(files["config_all.yaml"])) == config


def test_a_branch_is_named_by_what_differs_from_its_parent(project):
    BareRun(project.config)
    project.write("blobs.py", (project.folder / "blobs.py").read_text().replace("* 2", "* 3"))
    branch = BareRun(project.config, optimizer__args__lr=0.02)
    found = changes(branch.session.store, branch.plan)
    assert [one.line for one in found][:2] == [
        "optimizer.args.lr: 0.01 → 0.02",
        "blobs.py: changed",
    ]
    assert title(branch.plan, found).startswith("blobs@2 · lr=0.02 · blobs.py")
    about = about_run(
        branch.view.config, branch.plan, branch.session.run_inputs, branch.session.store,
        own_folder=True,
    )  # fmt: skip
    assert "Branched from `blobs@1`: 0 epochs shared." in about.note
    assert "- `optimizer.args.lr: 0.01 → 0.02`" in about.note
    assert about.files["sources/blobs.py"] == (project.folder / "blobs.py").read_bytes()
    assert {"config.yaml", "config_all.yaml", "sources/model.py"} <= about.files.keys()


def test_a_first_generation_bears_its_plain_name(project):
    run = BareRun(project.config)
    assert title(run.plan, changes(run.session.store, run.plan)) == "blobs"


def test_the_commit_is_told_and_whether_files_have_changed_since(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", tmp_path, *arguments],
            check=True,
            capture_output=True,
        )

    assert git_tags(tmp_path) == {}
    git("init", "-b", "trunk")
    git("remote", "add", "origin", "https://me:t0ken@example.com/x.git")
    (tmp_path / "model.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    tags = git_tags(tmp_path)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert "t0ken" not in json.dumps(tags)
    assert tags["epochal.git_changes"] == "no"
    (tmp_path / "model.py").write_text("2")
    assert git_tags(tmp_path)["epochal.git_changes"] == "yes"


def whole_run(config, *overrides):
    with active_run(load_config(config, overrides=overrides)) as active:
        for stage in active.run.stages():
            active.run.run_stage(stage)
    assert active.delivered.problem is None
    return active.delivered.run_id


def test_a_run_in_mlflow_is_told_apart_and_described(project, tracker):
    first = whole_run(project.config)
    branch = whole_run(project.config, "optimizer.args.lr=0.02")
    client = connect(tracker)
    run = client.get_run(branch)
    assert run.info.run_name == "blobs@2 · lr=0.02"
    assert "optimizer.args.lr: 0.01 → 0.02" in run.data.tags["mlflow.note.content"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "config_all.yaml", "sources"} <= files
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    (train, _) = run.inputs.dataset_inputs
    assert json.loads(train.dataset.profile) == {"num_rows": 180, "label_min": 0, "label_max": 2}
    spec = json.loads(json.loads(train.dataset.schema)["mlflow_tensorspec"]["features"])
    assert spec == [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 6]}}]

    # A person's own words stay.
    client.set_tag(first, "mlflow.note.content", "mine")
    assert whole_run(project.config) == first
    assert client.get_run(first).data.tags["mlflow.note.content"] == "mine"
