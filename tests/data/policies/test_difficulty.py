"""How hard a sample is: what each score says, and of whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.numbers.random_observations import observations
from support.runs.policy_runs import config_of, context_of, mined, planned

from epochal.data.policies.shared.difficulty import SCORE_COLUMNS, score_of

COUNT = 1000


@st.composite
def predictions(draw):
    """Probabilities of C classes and a label, float64 of shape (C,)."""
    raw = np.array(draw(st.lists(st.floats(0.001, 1), min_size=2, max_size=8)))
    return raw / raw.sum(), draw(st.integers(0, len(raw) - 1))


def el2n_of(probability_C, label):
    return float(np.linalg.norm(probability_C - np.eye(len(probability_C))[label]))


def columns_of(**columns):
    return {name: np.atleast_1d(np.array(values)) for name, values in columns.items()}


@given(predictions(), st.integers(1, 9), st.floats(0, 1))
def test_trusted_el2n_lies_between_el2n_and_its_bound_for_the_predicted_class(seen, epochs, trust):
    probability_C, label = seen
    confidence, el2n = probability_C.max(), el2n_of(probability_C, label)
    bound = np.sqrt(2) * (1 - confidence)
    columns = columns_of(el2n=el2n, confidence=confidence, p_true_sum=trust * epochs, n_seen=epochs)
    found = score_of(columns, "trusted_el2n").item()
    assert found == pytest.approx(trust * el2n + (1 - trust) * bound)
    assert el2n_of(probability_C, probability_C.argmax()) <= bound * (1 + 1e-12)
    if label == probability_C.argmax():
        assert el2n * (1 - 1e-12) <= found <= bound * (1 + 1e-12)


def test_sums_beyond_the_epochs_are_a_trust_of_one():
    """Sums of float32 may lie above the number of their summands."""
    columns = columns_of(el2n=0.5, confidence=0.9, p_true_sum=np.float32(3.0001), n_seen=3)
    assert score_of(columns, "trusted_el2n").item() == 0.5


@pytest.mark.parametrize("score", SCORE_COLUMNS)
def test_a_score_reads_what_it_says_and_nothing_else(score):
    table = mined(config_of("importance"), observations(np.arange(50)), count=60)
    only = {name: table[name] for name in SCORE_COLUMNS[score]}
    found = score_of(only, score)
    assert found.shape == (60,)
    assert np.isfinite(found[:50]).all()
    assert np.isnan(found[50:]).all(), "nobody saw these"


def contradicted(epoch, *, count=COUNT):
    """One epoch of samples of which a tenth has a label that was never believed, another is hard.

    The first are predicted surely, as another class; of the others the prediction is a guess.
    """
    columns = observations(np.arange(count), seed=epoch, labels=np.arange(count) % 5)
    kind = np.arange(count) % 10
    columns["confidence"] = np.select([kind == 0, kind == 1], [0.97, 0.4], 0.95).astype(np.float32)
    columns["p_true"] = np.select([kind == 0, kind == 1], [0.01, 0.35], 0.95).astype(np.float32)
    columns["el2n"] = np.select([kind == 0, kind == 1], [1.38, 0.75], 0.06).astype(np.float32)
    columns["correct"] = kind > 1
    return columns, kind


def kept_shares(policy, score):
    """Of either tenth, and of the others, the share that a plan keeps."""
    config = config_of(policy, score=score, budget=0.3, budget_end=0.3)
    table = None
    for epoch in range(3):
        columns, kind = contradicted(epoch)
        table = mined(config, columns, count=COUNT, previous=table, epoch=epoch)
        plan, table = planned(table, config, context_of(config, epoch + 1))
    return [plan.keep_N[one].mean() for one in (kind == 0, kind == 1, kind > 1)]


@pytest.mark.parametrize("policy", ["importance", "hard_mining"])
def test_a_label_that_was_never_believed_makes_a_sample_hard_by_el2n_alone(policy):
    doubted, hard, easy = kept_shares(policy, "el2n")
    assert doubted > 0.9
    trusted, still_hard, _ = kept_shares(policy, "trusted_el2n")
    assert trusted < 0.5
    assert still_hard >= hard
    assert still_hard > 2 * easy


@pytest.mark.parametrize("missing", ["el2n", "confidence"])
def test_without_a_part_of_the_score_a_sample_trains(missing):
    columns, _ = contradicted(0)
    columns[missing][::4] = np.nan
    config = config_of("importance by trust", warm_up=0)
    table = mined(config, columns, count=COUNT)
    keep_N = planned(table, config, context_of(config, 1))[0].keep_N
    assert keep_N[::4].all()
    assert not keep_N.all()


def test_one_epoch_without_probabilities_does_not_make_a_sample_train_for_ever():
    config = config_of("importance by trust", warm_up=0)
    broken, _ = contradicted(0)
    broken["p_true"][::4] = np.nan
    table = mined(config, broken, count=COUNT)
    table = mined(config, contradicted(1)[0], count=COUNT, previous=table, epoch=1)
    assert np.isnan(table["p_true_sum"][::4]).all()
    assert (score_of(table.columns, "trusted_el2n")[::4] == table["el2n"][::4]).all()
    assert not planned(table, config, context_of(config, 2))[0].keep_N[::4].all()
