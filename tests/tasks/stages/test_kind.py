"""A kind of stage is one declaration: whoever asks for kinds finds a made-up one as well."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.documents import dump_document
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.lookup import look_up
from epochal.tasks.runs.plan import make_plan
from epochal.tasks.runs.summary import flat_metrics
from epochal.tasks.stages.commit import commit_stage, put_moment
from epochal.tasks.stages.kind import DOCUMENT, Count, Number, Planned, RecordValues, StageKind
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.tracking.points import epoch_metrics


class Values(RecordValues):
    error: Number
    updates_done: Count


def plan(listing, epoch):
    return Planned({"seed": listing.config.seed}, {"parent": listing.newest("validate")})


def run(session, stage, consumed):
    validated = session.run.record_of(stage.parents["parent"])
    key, error = stage.known_key, validated.values["metrics"]["loss"] / 2
    artifact = session.stage_store.put_artifact(key, "json", dump_document({"temperature": 1.5}))
    put_moment(session, stage)
    values = {"error": error, "updates_done": validated.values["updates_done"]}
    return commit_stage(session, stage, {"temperature": artifact}, values, consumed=consumed)


def metrics(values):
    return {"calibration/error": values["error"]}


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    calibrate = StageKind(
        name="calibrate", version=1, when="epoch", field="metrics.validation", plan=plan,
        values=Values, artifacts={"temperature": DOCUMENT}, loads=lambda *_: (), run=run,
        metrics=metrics, points=metrics,
        line=lambda stage, record: [f"error {record.values['error']:.3f}"],
    )  # fmt: skip
    monkeypatch.setitem(KINDS, "calibrate", calibrate)
    return Project(tmp_path / "project", epochs=2, sampling={"policy": "none"})


def test_it_is_listed_computed_found_again_and_told(project):
    first = BareRun(project.config)()
    kinds = ["initialise", *["train", "validate", "calibrate"] * 2]
    assert [outcome.stage.kind for outcome in first.outcomes] == kinds
    assert all(outcome.cached for outcome in BareRun(project.config)().outcomes)
    stage, record = list(first.view.of_kind("calibrate"))[1]
    assert flat_metrics(first.view)["calibration/error"] == record.values["error"]
    (point,) = epoch_metrics(record, timestamp_ms=7)
    assert (point.key, point.step) == ("calibration/error", record.values["updates_done"])
    assert KINDS["calibrate"].line(stage, record)[0].startswith("error 0.")
    assert find_run(str(project.config)).is_whole


def test_a_plan_says_what_would_run_of_it_and_why(project):
    BareRun(project.config)()
    longer = make_plan(BareRun(project.config, epochs=3).view.config)
    missing = [(one.stage.label, one.why) for one in longer.reports if not one.done]
    assert ("calibrate · epoch 2", ("epochs: 2 → 3",)) in missing
    done = call("show", str(project.config), "--set", "epochs=3", "--json").json
    assert [one["stage"] for one in done["stages"]].count("calibrate") == 3


def test_a_record_of_it_that_does_not_hold_its_values_is_damage(project):
    made = BareRun(project.config)()
    stage, record = next(made.view.of_kind("calibrate"))
    store = made.session.stage_store
    store.store.delete(f"stages/{stage.known_key}/record.json")
    consumed = {}
    commit_stage(made.session, stage, record.artifacts, {"error": "much"}, consumed=consumed)
    status = look_up(store, [stage.known_key], stages=[stage])[stage.known_key]
    assert status.record is None
    assert "values.error" in status.problem
