"""`epochal plan` writes the same reasons once, and `--json` has them for each stage."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.flows.console import plan_table
from epochal.tasks.config.load import load_config
from epochal.tasks.runs.plan import make_plan


@pytest.fixture
def project(tmp_path, home):
    project = Project(tmp_path / "project", epochs=2)
    BareRun(project.config)()
    return project


def column(project, *overrides):
    report = make_plan(load_config(project.config, overrides=overrides))
    table = plan_table(report)
    (why,) = [list(one.cells) for one in table.columns if one.header == "why"]
    return [one.stage.label for one in report.reports], why


def test_the_same_reasons_are_written_once_whatever_their_order(project):
    labels, why = column(
        project, "optimizer.args.lr=0.02", "loader.batch_size=8", "model.args={width: 24}"
    )
    own = dict(zip(labels, why, strict=True))
    assert own["initialise"].startswith("model.args")
    first = own["train · epoch 0"]
    assert first.startswith("as above; ")
    assert "optimizer.args.lr: 0.01 → 0.02" in first
    assert "loader.batch_size: 16 → 8" in first
    rest = [text for label, text in own.items() if label not in {"initialise", "train · epoch 0"}]
    assert set(rest) == {"as above"}


def test_reasons_that_stand_further_up_are_named_by_their_stage(project):
    labels, why = column(project, "validation_data.args.size=60", "optimizer.args.lr=0.02")
    own = dict(zip(labels, why, strict=True))
    assert own["train · epoch 0"] == "optimizer.args.lr: 0.01 → 0.02"
    assert own["validate · epoch 0"].startswith("as above; validation_data")
    assert own["mine · epoch 0"] == "as train · epoch 0"
    assert own["train · epoch 1"] == "as above"
    assert own["validate · epoch 1"] == "as validate · epoch 0"


def test_json_has_the_reasons_of_every_stage(project):
    plan = call("plan", str(project.config), "--set", "optimizer.args.lr=0.02", "--json").json
    (done, *others) = plan["stages"]
    assert done["why"] == []
    assert {tuple(one["why"]) for one in others} == {("optimizer.args.lr: 0.01 → 0.02",)}
