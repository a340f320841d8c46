"""The points of the ledger: which of the step metrics arrive in MLflow, under which names."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.stores.tracking_store import Finished, expected_keys_and_steps, keys_and_steps

from epochal.data.errors import CorruptObject
from epochal.tasks.tracking.points import _check_steps


def test_every_update_and_epoch_metric_is_delivered_with_its_time_and_value(database):
    finished = Finished(epochs=2, updates=4)
    result = finished.run(database.uri)
    assert result.problem is None
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 2)
    points = {
        (key, step): (time, value) for key, step, time, value in database.points(result.run_id)
    }
    assert points["gradients/norm", 5] == (1_700_000_062_500, 5.25)
    assert points["validation/accuracy", 8] == (1_700_000_071_000, 0.9)
    assert points["sampling/kept", 4] == (1_700_000_012_000, 0.75)


def test_log_frequency_and_groups_thin_the_delivery_and_keep_each_last_update(database):
    finished = Finished(epochs=2, updates=5)
    result = finished.run(database.uri, log_every_updates=3, per_group=False)
    held = keys_and_steps(database, result.run_id)
    assert [step for key, step in held if key == "train/loss"] == [3, 5, 6, 9, 10]
    assert not [key for key, _ in held if key.startswith("gradients/norm/")]


def test_finer_log_frequency_adds_what_was_left_out(database):
    finished = Finished(epochs=2, updates=5)
    finished.run(database.uri, log_every_updates=3, per_group=False)
    result = finished.run(database.uri)
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 2)


def test_infinite_points_stay_in_the_store_and_are_named(database):
    values = {("gradients/norm", 3): float("inf"), ("train/loss", 4): float("nan")}
    finished = Finished(epochs=1, updates=5, values=values)
    result = finished.run(database.uri)
    held = keys_and_steps(database, result.run_id)
    assert ("gradients/norm", 3) not in held
    assert ("train/loss", 4) in held
    note = database.tags(result.run_id)["epochal.non_finite"]
    assert note == "1, first: gradients/norm at update 3"


def test_names_that_mlflow_refuses_do_not_stop_the_rest(database):
    finished = Finished(epochs=1, updates=2, keys=("train/loss", "gradients/norm/a[0]/../b"))
    result = finished.run(database.uri, params={"model.args.a:b[c]": "1"})
    assert result.problem is None
    held = keys_and_steps(database, result.run_id)
    assert ("gradients/norm/a:lbrack:0:rbrack:/:dot:./b", 1) in held


def test_metrics_groups_and_parameters_of_alike_names_stay_apart(database):
    groups = ("gradients/norm/a+b", "gradients/norm/a_b", "gradients/norm/A_b")
    metrics = {
        "recall@5": 0.1,
        "recall_5": 0.2,
        "score_<10": 0.25,
        "score_>10": 0.75,
        "Recall_5": 1,
    }
    params = {"model.args.a b?": "1", "model.args.a b!": "2", "x" * 300: "3", "x" * 299 + "y": "4"}
    finished = Finished(epochs=1, updates=2, keys=groups, metrics=metrics)
    result = finished.run(database.uri, params=params)
    assert result.problem is None
    points = {}
    for key, step, _, value in database.points(result.run_id):
        points.setdefault(key.casefold(), []).append((step, value))
    assert sum(key.startswith("gradients/norm/") for key in points) == len(groups)
    validated = {key: value for key, value in points.items() if key.startswith("validation/")}
    assert sorted(value for ((_, value),) in validated.values()) == sorted(metrics.values())
    held = database("SELECT value FROM params WHERE run_uuid = ?", result.run_id)
    assert sorted(held) == [("1",), ("2",), ("3",), ("4",)]


@pytest.mark.parametrize(("first", "last", "fits"), [(6, 10, 1), (5, 10, 0), (6, 11, 0)])
def test_steps_of_another_epoch_are_damage(first, last, fits):
    record = SimpleNamespace(values={"updates_done": 10, "updates": 5})
    steps = np.arange(first, last + 1)
    if fits:
        _check_steps(steps, record)
        return
    with pytest.raises(CorruptObject, match=f"its steps are {first} to {last}"):
        _check_steps(steps, record)


SPENT = {"data": 1.0, "forward_backward": 6.0, "commit": 3.0}


def of_goodput(database, run_id):
    return [one for one in database.points(run_id) if one[0].startswith("goodput/")]


def test_what_a_stage_has_cost_is_delivered_once_with_the_time_of_its_end(database):
    finished = Finished(epochs=2, updates=4)
    finished.cost("train", 1, seconds=SPENT, samples=70, peak_host_bytes=1 << 30)
    finished.cost("validate", 1, seconds={"validation": 2.0, "commit": 0.5})
    first = finished.run(database.uri)
    assert first.problem is None
    ended, validated = 1_700_000_070_000, 1_700_000_071_000
    expected = [
        ("goodput/commit_seconds", 8, ended, 3.0),
        ("goodput/data_seconds", 8, ended, 1.0),
        ("goodput/forward_backward_seconds", 8, ended, 6.0),
        ("goodput/peak_host_bytes", 8, ended, float(1 << 30)),
        ("goodput/samples_per_second", 8, ended, 10.0),
        ("goodput/share", 8, ended, 0.6),
        ("goodput/validate_stage_seconds", 8, validated, 2.5),
    ]
    assert of_goodput(database, first.run_id) == expected
    for path in finished.store.listing("runs"):
        if "/delivered/" in path:
            finished.store.delete(path)  # killed between a delivery and its marker
    second = finished.run(database.uri)
    assert second.run_id == first.run_id
    assert of_goodput(database, first.run_id) == expected


@pytest.mark.parametrize("body", [{"seconds": {"data": -1.0}}, {}, {"seconds": "many"}])
def test_a_cost_that_is_none_is_left_out_and_set_aside_and_the_rest_is_delivered(database, body):
    finished = Finished(epochs=1, updates=2)
    finished.cost("train", 0, **body)
    result = finished.run(database.uri)
    assert result.problem is None
    assert keys_and_steps(database, result.run_id) == expected_keys_and_steps(finished, 1)
    assert any("goodput.json" in path for path in finished.store.listing("damaged"))
