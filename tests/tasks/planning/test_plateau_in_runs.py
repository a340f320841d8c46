"""The plateau schedule in runs: its rates, what of it is in keys, and what a plan says of it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from support.numbers.stage_keys import FACTS, all_of, config, keys
from support.runs.bare_run import BareRun, rates
from support.runs.project import Project, call, environment

from epochal.data.errors import TrainingFailed
from epochal.data.tables.writing import UPDATES, read_table
from epochal.tasks.planning.plateau import known_factors
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.stages.registry import list_stages

BASE = 0.01  # of the project's optimizer
UPDATES_PER_EPOCH = 6  # 180 samples in micro-batches of 16, two to an update
PATIENT = (
    "{kind: plateau, metric: loss, factor: 0.5, patience: 1, threshold: 9, threshold_mode: abs}"
)
"""Nothing improves by 9 on the first loss: the rate falls after epochs 2, 4 …"""

DICT_METRIC = """
    class Parts:
        def update(self, outputs, target):
            pass

        def compute(self):
            return {"one": 1.0, "two": 2.0}

    class Nan(Parts):
        def compute(self):
            return float("nan")
"""


@pytest.fixture
def project(tmp_path, home):
    made = Project(tmp_path / "project", epochs=6, sampling={"policy": "none"})
    made.write("measures.py", DICT_METRIC)
    return made


def computed(run):
    return [(one.stage.kind, one.stage.epoch) for one in run.outcomes if not one.cached]


def test_the_rate_falls_after_validations_that_have_not_improved(project):
    run = BareRun(project.config, schedule=PATIENT)()
    factors = [1, 1, 1, 0.5, 0.5, 0.25]
    for epoch, factor in enumerate(factors):
        assert rates(run, epoch) == [BASE * factor] * UPDATES_PER_EPOCH
    told = {
        stage.epoch: record.values.get("schedule_factor")
        for stage, record in run.view.of_kind("train")
    }
    assert told == {0: None, 1: None, 2: 1, 3: 0.5, 4: 0.5, 5: 0.25}


def test_a_run_that_was_killed_ends_in_the_bytes_of_an_unbroken_one(project, tmp_path):
    whole = BareRun(project.config, schedule=PATIENT, store=f"file://{tmp_path}/whole")()
    often = {"schedule": PATIENT, "checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL=str(3 * 12 + 7)), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    with environment(FAIL_AT_CALL=str(9 + 12)), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests
    assert rates(again, 3) == [BASE * 0.5] * UPDATES_PER_EPOCH


def test_a_run_that_finds_everything_has_the_same_rates_and_a_longer_one_goes_on(project):
    short = BareRun(project.config, schedule=PATIENT, epochs=4)()
    again = BareRun(project.config, schedule=PATIENT, epochs=4)()
    assert computed(again) == []
    assert again.weights == short.weights
    longer = BareRun(project.config, schedule=PATIENT)()
    assert computed(longer) == [(kind, epoch) for epoch in (4, 5) for kind in ("train", "validate")]
    assert rates(longer, 5) == [BASE * 0.25] * UPDATES_PER_EPOCH
    whole = BareRun(project.config, schedule=PATIENT, store="memory://whole-plateau")()
    assert whole.digests == longer.digests


def test_another_metric_beside_retrains_nothing(project):
    before = BareRun(project.config, schedule=PATIENT)()
    more = BareRun(project.config, schedule=PATIENT, metrics__validation="[accuracy, f1]")()
    assert {kind for kind, _ in computed(more)} == {"validate"}
    assert more.weights == before.weights


def test_a_commit_inside_an_epoch_of_another_rate_is_not_gone_on_from(project):
    often = {"schedule": PATIENT, "checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL=str(3 * 12 + 7)), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    run = BareRun(project.config, **often)
    first = run.view.stage("validate", 0)
    record = run.view.records[first.known_key]
    metrics = {**record.values["metrics"], "loss": 99.0}  # as other hardware might measure it
    values = {**record.values, "metrics": metrics}
    run.view.records[first.known_key] = replace(record, values=values)
    run()
    assert ("train", 3) not in run.resumed
    assert rates(run, 3) == [BASE] * UPDATES_PER_EPOCH


def test_a_metric_that_is_never_finite_is_never_an_improvement(project):
    metric = "[accuracy, {name: gone, target: 'measures:Nan'}]"
    schedule = "{kind: plateau, metric: gone, patience: 0, factor: 0.5}"
    run = BareRun(project.config, schedule=schedule, metrics__validation=metric, epochs=3)()
    assert [rates(run, epoch)[0] for epoch in range(3)] == [BASE, BASE / 2, BASE / 4]


def test_a_metric_of_several_numbers_is_named_after_the_first_epoch(project):
    metric = "[accuracy, {name: parts, target: 'measures:Parts'}]"
    run = BareRun(
        project.config, schedule="{kind: plateau, metric: parts}", metrics__validation=metric
    )
    with pytest.raises(TrainingFailed, match="'parts' is no single number; validate · epoch 0 has"):
        run()
    assert computed(run)[-1] == ("validate", 0)


def test_it_combines_with_a_warm_up_and_a_limit_of_updates(project):
    schedule = "{kind: plateau, metric: loss, factor: 0.5, patience: 0, threshold: 9, \
threshold_mode: abs, warmup: 9, unit: updates}"
    run = BareRun(project.config, schedule=schedule, max_updates=20)()
    rising = [BASE * (update + 0.5) / 9 for update in range(9)]
    assert rates(run, 0) + rates(run, 1) == pytest.approx([*rising, *[BASE] * 3])
    # The validation of epoch 1 is the first that counts; that of epoch 2 is the first plateau.
    assert rates(run, 2) == [BASE] * UPDATES_PER_EPOCH
    assert rates(run, 3) == [BASE / 2] * 2


@pytest.mark.parametrize(("warmup", "factors"), [(0, [1, 1, 0.1, 0.1]), (1.5, [1, 1, 1, 1])])
def test_what_is_measured_in_the_warm_up_is_no_best_value(warmup, factors):
    schedule = {"kind": "plateau", "metric": "loss", "patience": 0, "warmup": warmup, "cooldown": 9}
    settings = config(schedule=schedule, sampling={}, epochs=4)
    stages = list_stages(settings, FACTS)
    validations = [stage for stage in stages if stage.kind == "validate"]
    records = {
        stage.key: SimpleNamespace(values={"metrics": {"loss": loss}})
        for stage, loss in zip(validations, [0.1, 5.0, 4.0, 3.0], strict=True)
    }
    assert known_factors(RunView(settings, stages, records), None) == factors


def test_its_rates_reach_the_other_groups_too(project):
    groups = "[{match: 'head.*', lr_factor: 10}]"
    run = BareRun(project.config, schedule=PATIENT, optimizer__groups=groups, epochs=4)()
    record = run.view.record_of(run.view.stage("train", 3))
    with run.session.stage_store.fetch_artifact(record, "updates") as path:
        columns = read_table(path, schema=UPDATES).columns
    of_group = {
        key: set(columns["value"][columns["key"] == key].tolist())
        for key in set(columns["key"])
        if key.startswith("train/learning_rate")
    }
    assert sorted(map(sorted, of_group.values())) == [[BASE * 0.5], [BASE * 10 * 0.5]]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("metric: f1", "schedule.metric: 'f1' is not measured; there is accuracy, loss"),
        ("metric: ema/loss", "schedule.metric: 'ema/loss' is not measured"),
        ("patience: -1", "schedule.patience: found -1"),
        ("min_lr: 0.1", "schedule.min_lr: there is no such key"),
    ],
)
def test_what_it_cannot_watch_is_a_config_error(project, options, problem):
    done = project("plan", schedule=f"{{kind: plateau, {options}}}")
    assert done.code == 2
    assert problem in done.err.replace("\n", " ")


def test_a_plan_says_which_rates_are_known(project):
    arguments = ("plan", str(project.config), "--set", f"schedule={PATIENT}")
    assert (
        "schedule: x 1 from epoch 0 on; from epoch 2 on it follows from validation/loss, not yet "
        "known"
    ) in call(*arguments).out.replace("\n", " ")
    BareRun(project.config, schedule=PATIENT, epochs=4)()
    assert (
        "schedule: x 1 from epoch 0 on, x 0.5 from epoch 3 on; from epoch 5 on it follows"
    ) in call(*arguments).out.replace("\n", " ")
    found = project("plan", schedule=PATIENT).json
    assert found["schedule_factors"] == [1, 1, 1, 0.5, 0.5]
    assert "schedule_factors" not in project("plan").json


def test_more_patience_than_any_run_has_epochs_is_a_constant_rate(project):
    endless = PATIENT.replace("patience: 1", f"patience: {10**15}")
    assert project("plan", schedule=endless).json["schedule_factors"] == [1] * 6


def test_no_rate_is_known_while_the_size_of_an_epoch_is_not(project):
    found = project("plan", schedule=PATIENT[:-1] + ", warmup: 3, unit: updates}")
    assert found.json["schedule_factors"] == []


def test_a_plan_says_which_field_has_changed(project):
    BareRun(project.config, schedule=PATIENT)()
    found = project("plan", schedule=PATIENT.replace("patience: 1", "patience: 2")).json
    why = {(one["stage"], one["epoch"]): one["why"] for one in found["stages"] if not one["done"]}
    assert min(epoch for _, epoch in why) == 2
    assert why["train", 2] == ["schedule.patience: 1 → 2"]
    better = project("plan", schedule=PATIENT, loader__validation_batch_size=30).json
    changed = next(one for one in better["stages"] if one["stage"] == "train" and not one["done"])
    assert changed["why"] == ["loader.validation_batch_size: not set → 30"]


PLATEAU = {"schedule": {"kind": "plateau", "metric": "loss", "patience": 2}, "sampling": {}}


def differing(first, second):
    return {place for place in first if first[place] != second[place]}


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, None),
        ({"schedule__patience": 4}, 3),
        ({"schedule__patience": 1}, 2),
        ({"schedule__factor": 0.5}, 3),
        ({"schedule__cooldown": 1}, 3),
        ({"schedule__threshold": 0.1}, 3),
        ({"schedule__threshold_mode": "abs"}, 3),
        ({"schedule__floor": 0.1}, 3),
        ({"schedule__mode": "max"}, 3),
        ({"schedule__metric": "accuracy"}, 3),
        ({"loader__validation_batch_size": 64}, 3),
        ({"schedule__mode": "min"}, None),
        ({"metrics": {"validation": ["accuracy", "f1"]}}, None),
        ({"metrics": {"validation": ["accuracy"], "best": "loss"}}, None),
        ({"schedule": {"kind": "constant"}}, 3),
        ({"schedule__warmup": 0.5}, 0),
    ],
)
def test_a_change_reaches_the_epochs_that_may_be_lowered(changes, first):
    found = differing(keys(**PLATEAU), keys(**{**PLATEAU, **changes}))
    expected = set() if first is None else all_of("train", first=first)
    assert {place for place in found if place[0] == "train"} == expected


def test_other_validation_data_reaches_the_epochs_that_may_be_lowered():
    other = RunInputs(FACTS.sources, FACTS.train_data, DatasetFacts("f" * 64))
    found = differing(keys(**PLATEAU), keys(other, **PLATEAU))
    assert found == all_of("validate") | all_of("train", first=3)
    unread = keys(RunInputs(FACTS.sources, FACTS.train_data, DatasetFacts(None)), **PLATEAU)
    assert [unread["train", epoch] is None for epoch in range(8)] == [False] * 3 + [True] * 5


def test_an_edited_metric_reaches_them_where_it_is_watched():
    measured = {"metrics": {"validation": ["accuracy", {"name": "own", "target": "own:metric"}]}}
    edited = RunInputs(
        {**FACTS.sources, "metrics.own": {"own.py": "e" * 64}},
        FACTS.train_data,
        FACTS.validation_data,
    )
    for metric, expected in (("own", all_of("train", first=3)), ("loss", set())):
        options = {**PLATEAU, **measured, "schedule__metric": metric}
        found = differing(keys(**options), keys(edited, **options))
        assert {place for place in found if place[0] == "train"} == expected


def test_the_metric_by_default_is_that_of_the_best_epoch():
    default = {"schedule": {"kind": "plateau", "patience": 2}, "sampling": {}}
    for best in ("loss", "accuracy"):
        metrics = {"metrics": {"validation": ["accuracy"], "best": best}}
        said = {**PLATEAU, **metrics, "schedule__metric": best}
        assert keys(**default, **metrics) == keys(**said)


def test_the_golden_key_of_an_epoch_that_may_be_lowered_is_pinned():
    assert keys(**PLATEAU)["train", 7] == (
        "d15b48409e1f984638e9d72b0b6faac8b79d13e0339886433d7b95a865d6f6a1"
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.floats(0, 4))
def test_the_first_epochs_are_those_of_a_constant_rate(patience, warmup):
    lowered = {"kind": "plateau", "metric": "loss", "patience": patience, "warmup": warmup}
    constant = keys(sampling={}, schedule={"kind": "constant", "warmup": warmup})
    found = keys(sampling={}, schedule=lowered)
    first = config(schedule=lowered).schedule.first_lowered
    same = [found["train", epoch] == constant["train", epoch] for epoch in range(8)]
    assert same == [epoch < first for epoch in range(8)]


def test_mlflow_shows_the_rate_of_every_update(tmp_path, tracker, prefect_api):
    project = Project(tmp_path / "project", epochs=4, sampling={"policy": "none"})
    done = project("train", schedule=PATIENT)
    assert done.code == 0, done.err
    history = MlflowClient(tracker).get_metric_history(
        done.json["mlflow_run_id"], "train/learning_rate"
    )
    found = [point.value for point in sorted(history, key=lambda point: point.step)]
    assert found == [BASE] * 3 * UPDATES_PER_EPOCH + [BASE / 2] * UPDATES_PER_EPOCH
