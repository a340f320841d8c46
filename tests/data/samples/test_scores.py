"""What follows from a sample table: means over epochs, and what became of each prediction."""

import numpy as np
import pytest
from support.numbers.random_observations import observations

from epochal.data.samples.scores import STATES, data_map, never_right, states, variability
from epochal.data.samples.table import table_of_all


def table_of(*epochs, ids=(0,), **columns):
    """The table after epochs whose observations have these values in turn."""
    seen = []
    for epoch, values in enumerate(epochs):
        found = observations(ids) | {"p_true": np.full(len(ids), 0.5, np.float32)}
        for name, value in {**columns, **values}.items():
            found[name] = np.full(len(ids), value, dtype=found[name].dtype)
        seen.append((epoch, found))
    return table_of_all(seen, confidence=0.9).columns


@pytest.mark.parametrize(
    ("verdicts", "state"),
    [
        ((True, True), "never forgotten"),
        ((False, True), "never forgotten"),
        ((True, False, True), "forgotten, right again"),
        ((True, False), "forgotten, wrong now"),
        ((False, False), "never right"),
    ],
)
def test_what_became_of_a_samples_predictions(verdicts, state):
    table = table_of(*({"correct": verdict} for verdict in verdicts))
    assert STATES[states(table)[0]] == state
    assert never_right(table)[0] == (state == "never right")


@pytest.mark.parametrize("values", [(0.2, 0.8), (0.5, 0.5, 0.5), (0.1, 0.9, 0.4)])
def test_variability_is_the_standard_deviation_of_the_probability(values):
    table = table_of(*({"p_true": value} for value in values))
    assert variability(table)[0] == pytest.approx(np.std(values), abs=1e-4)


def test_a_sample_that_one_epoch_saw_is_on_no_data_map():
    assert data_map(table_of({})) is None
    found = data_map(table_of({}, {}, ids=(3, 4)))
    assert (len(found), found.left_out) == (2, 0)
