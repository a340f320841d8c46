"""Which run is better, and how many go on."""

import pytest
from support.runs.project import Project

from epochal.data.errors import ConfigError
from epochal.tasks.config.load import load_config
from epochal.tasks.sweeps.ranking import Measure, kept_of, measure_of, sorted_by


def test_the_best_come_first_then_equals_in_their_order_and_last_those_without_a_value():
    values = {"a": None, "b": 0.5, "c": float("nan"), "d": 0.9, "e": 0.5}
    assert sorted_by(Measure("accuracy", "max"), values) == ["d", "b", "e", "a", "c"]
    assert sorted_by(Measure("loss", "min"), values) == ["b", "e", "d", "a", "c"]


@pytest.mark.parametrize(("count", "kept"), [(27, 9), (9, 3), (3, 1), (10, 4), (1, 1), (2, 1)])
def test_one_of_so_many_goes_on_rounded_up(count, kept):
    assert kept_of(count, 3.0) == kept


def test_a_measure_is_that_of_the_run_unless_another_is_named(tmp_path):
    config = load_config(Project(tmp_path / "project").config)
    assert measure_of(config, metric=None, mode=None) == Measure("accuracy", "max")
    assert measure_of(config, metric="validation/loss", mode=None) == Measure("loss", "min")
    assert measure_of(config, metric="loss", mode="max") == Measure("loss", "max")
    with pytest.raises(ConfigError, match=r"halving.metric: 'f1' is not measured; there is acc"):
        measure_of(config, metric="f1", mode=None, place="halving.")
