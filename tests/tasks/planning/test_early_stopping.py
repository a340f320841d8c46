"""Early stopping: a pure function of the validations that ends the list and changes no key."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.engine.config.numerics import MetricsConfig
from epochal.tasks.config.parts import EarlyStoppingConfig, rule
from epochal.tasks.planning.early_stopping import last_epoch

VALUES = st.lists(st.one_of(st.none(), st.floats(-10, 10, allow_nan=False)), max_size=30)


def ends(values, mode="max", **options):
    return last_epoch(EarlyStoppingConfig(**options), values, mode=mode)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ([1, 2, 3, 4], {"patience": 1}, None),
        ([1, 2, 2, 2], {"patience": 2}, 3),
        ([1, 2, 1, 3, 1, 1], {"patience": 2}, 5),
        ([3, 2, 1], {"patience": 2, "mode": "min"}, None),
        ([1, 1.05, 1.1, 1.15], {"patience": 3, "min_delta": 0.1}, None),
        ([1, 1.05, 1.09, 1.1], {"patience": 3, "min_delta": 0.1}, 3),
        ([9, 1, 1, 2, 3], {"patience": 2}, 2),
        ([9, 1, 1, 2, 3], {"patience": 2, "start": 1}, None),
        ([1, None, None], {"patience": 2}, 2),
        ([None, None, 5], {"patience": 3}, None),
        ([], {"patience": 1}, None),
    ],
)
def test_the_last_epoch(values, options, expected):
    mode = options.pop("mode", "max")
    assert ends(values, mode, **options) == expected


@given(VALUES, st.integers(1, 6), st.sampled_from(["max", "min"]), st.integers(0, 5))
def test_the_decision_stands_whatever_comes_after_it(values, patience, mode, start):
    options = {"patience": patience, "start": start}
    last = ends(values, mode, **options)
    for known in range(len(values) + 1):
        found = ends(values[:known], mode, **options)
        assert found == (None if last is None or known <= last else last)


@given(VALUES, st.integers(1, 6))
def test_more_patience_never_ends_sooner(values, patience):
    sooner, later = (ends(values, patience=one) for one in (patience, patience + 1))
    assert later is None or sooner <= later


@given(VALUES, st.integers(1, 6))
def test_the_direction_is_a_sign(values, patience):
    negative = [None if one is None else -one for one in values]
    assert ends(values, "max", patience=patience) == ends(negative, "min", patience=patience)


def test_the_default_is_the_metric_that_says_what_is_best():
    metrics = MetricsConfig.model_validate({"validation": ["accuracy", "mse"], "best": "accuracy"})
    assert rule(EarlyStoppingConfig(), metrics) == ("accuracy", "max")
    assert rule(EarlyStoppingConfig(metric="mse"), metrics) == ("mse", "min")
    assert rule(EarlyStoppingConfig(metric="mse", mode="max"), metrics) == ("mse", "max")
    other = metrics.model_copy(update={"best_mode": "min"})
    assert rule(EarlyStoppingConfig(), other) == ("accuracy", "min")
    assert rule(EarlyStoppingConfig(metric="loss"), other) == ("loss", "min")


STOP = {"early_stopping": "{patience: 2, min_delta: 0.5}"}  # nothing improves by half


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=6, sampling={"policy": "none"})


def trained(run):
    return [one.stage.epoch for one in run.outcomes if one.stage.kind == "train"]


def test_a_run_ends_where_nothing_improves_and_its_keys_are_the_same(project):
    stopped = BareRun(project.config, **STOP)()
    assert trained(stopped) == [0, 1, 2]
    whole = BareRun(project.config)()
    assert trained(whole) == list(range(6))
    cached = [one.stage.label for one in whole.outcomes if one.cached]
    assert cached == [one.stage.label for one in stopped.outcomes]


def test_what_is_cached_decides_alike_and_more_patience_goes_on(project):
    first = BareRun(project.config, **STOP)()
    again = BareRun(project.config, **STOP)()
    assert all(one.cached for one in again.outcomes)
    assert (trained(again), again.weights) == (trained(first), first.weights)
    assert again.view.stopped_after == 2
    assert again.work.components is None, "nothing is to be computed, so nothing is built"
    longer = BareRun(project.config, early_stopping="{patience: 4, min_delta: 0.5}")()
    assert trained(longer) == [0, 1, 2, 3, 4]
    assert [one.stage.epoch for one in longer.outcomes if not one.cached] == [3, 3, 4, 4]
    # A longer run that is there does not hide the decision.
    assert BareRun(project.config, **STOP)().weights == first.weights


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("{metric: f1}", "early_stopping.metric: 'f1' is not measured; there is accuracy, loss"),
        ("{metric: ema/loss}", "'ema/loss' is not measured"),
        ("{patience: 0}", "early_stopping.patience: found 0"),
        ("{delta: 1}", "early_stopping.delta: there is no such key; did you mean 'min_delta'"),
    ],
)
def test_what_it_cannot_watch_is_a_config_error(project, options, problem):
    done = project("plan", early_stopping=options)
    assert done.code == 2
    assert problem in done.err.replace("\n", " ")


def test_a_plan_says_what_may_not_and_what_will_not_be_needed(project):
    before = call("plan", str(project.config), "--set", f"early_stopping={STOP['early_stopping']}")
    assert "later epochs may not be needed" in before.out
    BareRun(project.config, **STOP)()
    after = call("plan", str(project.config), "--set", f"early_stopping={STOP['early_stopping']}")
    assert "7 of 7 stages done, 0 would run" in after.out
    assert "ended the run with epoch 2: later epochs are not needed" in after.out
    assert after.out.count("not needed") == 1 + 2 * 3
    found = project("plan", **STOP).json
    assert (found["stopped_early"], found["would_run"]) == (2, 0)
    assert [one["needed"] for one in found["stages"]] == [True] * 7 + [False] * 6


def test_the_command_ends_its_loop_there_and_every_view_says_so(tmp_path, tracker, prefect_api):
    policy = {"policy": "easy_skip", "confidence": 0.7}
    project = Project(tmp_path / "project", epochs=6, sampling=policy)
    done = project("train", **STOP)
    assert done.code == 0, done.err
    found = done.json
    assert found["stopped_early"] == 2
    assert done.stages(stage="train") == [("train", 0), ("train", 1), ("train", 2)]
    assert ("mine", 2) in done.stages(stage="mine")
    assert math.isfinite(found["metrics"]["validation/accuracy"])
    client = MlflowClient(tracker)
    tracked = client.get_run(found["mlflow_run_id"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["epochal.stopped_early"] == "2"
    assert tracked.data.tags["epochal.weights_sha256"] == found["weights_sha256"]
    shown = call("show", f"{project.store}/blobs")
    assert "stopped  early, with epoch 2" in shown.out
    assert call("runs", str(project.store), "--json").out.count('"stopped_early": 2') == 1
    assert "3 of 6, stopped early" in call("runs", str(project.store)).out
    again = project("train", **STOP)
    assert (again.stages(cached=False), again.json["weights_sha256"]) == (
        [],
        found["weights_sha256"],
    )
    more = project("train", early_stopping="{patience: 5, min_delta: 0.5}")
    assert more.json["mlflow_run_id"] == found["mlflow_run_id"]
    assert more.json["stopped_early"] is None
    assert more.stages(stage="train", cached=False) == [("train", 3), ("train", 4), ("train", 5)]
    tags = client.get_run(found["mlflow_run_id"]).data.tags
    assert tags["epochal.stopped_early"] == "no"
