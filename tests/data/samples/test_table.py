"""The sample table: the last word on each sample, and its whole history in a few numbers."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.random_observations import observations, without_classes
from support.stores.sample_files import read_samples, write_samples

from epochal.data.errors import StateMismatch
from epochal.data.samples.table import (
    FLAG_NON_FINITE,
    NEVER,
    SampleTable,
    update,
)
from epochal.data.tables.writing import SAMPLES


def updated(previous, columns, *, epoch=0, ids=range(6), labels=None, confidence=0.9):
    return update(
        previous,
        columns,
        epoch=epoch,
        sample_ids_N=np.asarray(ids),
        labels_N=labels,
        confidence=confidence,
    )


def verdict(sample, *, correct=True, confidence=0.95, loss=0.1, label=0):
    """One observation of one sample."""
    columns = observations([sample], labels=[label])
    columns["correct"][:] = correct
    columns["confidence"][:] = confidence
    columns["loss"][:] = loss
    return columns


def history(*verdicts):
    """The row of sample 3 after these verdicts, one an epoch; None: not seen in that epoch."""
    table = None
    for epoch, one in enumerate(verdicts):
        table = updated(table, observations([]) if one is None else verdict(3, **one), epoch=epoch)
    return {name: array[3] for name, array in table.columns.items()}


EASY, WRONG, UNSURE = {}, {"correct": False}, {"confidence": 0.5}


def test_the_table_has_the_columns_of_its_schema_and_a_row_for_each_sample():
    table = updated(None, observations(range(4)))
    needed = [column for column in SAMPLES.columns if column.required]
    assert tuple(table.columns) == tuple(column.name for column in needed)
    assert len(table) == 6
    for column in needed:
        assert table[column.name].dtype == np.dtype(column.dtype), column.name


def test_a_sample_that_was_never_seen_says_so():
    table = updated(None, observations([0, 1]))
    assert table["epoch_seen"].tolist() == [0, 0, NEVER, NEVER, NEVER, NEVER]
    assert table["n_seen"].tolist() == [1, 1, 0, 0, 0, 0]
    for name in ("loss", "confidence", "p_true", "margin", "el2n", "margin_sum", "p_true_sum"):
        assert np.isnan(table[name][2:]).all(), name
    assert not table["correct"][2:].any()
    assert table["keep"].all()
    assert (table["weight"] == 1).all()


def test_the_last_observation_counts_and_unseen_samples_keep_their_scores():
    first = observations(range(6), seed=1)
    second = observations([4, 2], seed=2)
    table = updated(updated(None, first), second, epoch=1)
    assert table["epoch_seen"].tolist() == [0, 0, 1, 0, 1, 0]
    assert table["n_seen"].tolist() == [1, 1, 2, 1, 2, 1]
    expected = first["loss"].copy()
    expected[[4, 2]] = second["loss"]
    assert table["loss"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("verdicts", "streak"),
    [
        ([EASY], 1),
        ([EASY, EASY, EASY], 3),
        ([EASY, EASY, WRONG], 0),
        ([EASY, UNSURE], 0),
        ([WRONG, EASY], 1),
        ([EASY, None, EASY], 2),
        ([EASY, None], 1),
    ],
)
def test_the_streak_counts_easy_verdicts_in_a_row(verdicts, streak):
    assert history(*verdicts)["easy_streak"] == streak


@pytest.mark.parametrize(
    ("verdicts", "forgotten"),
    [
        ([WRONG, WRONG], 0),
        ([EASY, WRONG], 1),
        ([UNSURE, WRONG, EASY, None, WRONG], 2),
        ([EASY, EASY], 0),
    ],
)
def test_forgetting_is_a_right_prediction_that_became_wrong(verdicts, forgotten):
    assert history(*verdicts)["forget_count"] == forgotten


def test_counts_stop_at_the_largest_number_that_the_column_holds():
    table = updated(None, verdict(3))
    full = {name: array.copy() for name, array in table.columns.items()}
    full["easy_streak"][3] = full["forget_count"][3] = 32767
    assert updated(SampleTable(full), verdict(3), epoch=1)["easy_streak"][3] == 32767
    assert updated(SampleTable(full), verdict(3, **WRONG), epoch=1)["forget_count"][3] == 32767


def test_the_threshold_is_compared_as_it_was_written():
    assert float(np.float32(0.9)) < 0.9
    assert history({"confidence": np.float32(0.9)})["easy_streak"] == 0
    assert history({"confidence": np.nextafter(np.float32(0.9), np.float32(1))})["easy_streak"] == 1


def test_sums_give_means_and_variability_over_the_epochs():
    seen = [observations(range(6), seed=seed) for seed in range(5)]
    table = None
    for epoch, columns in enumerate(seen):
        table = updated(table, columns, epoch=epoch)
    margins = np.mean([columns["margin"] for columns in seen], axis=0)
    p_true = np.array([columns["p_true"] for columns in seen])
    mean = table["p_true_sum"] / table["n_seen"]
    assert np.allclose(table["margin_sum"] / table["n_seen"], margins, atol=1e-6)
    assert np.allclose(mean, p_true.mean(0), atol=1e-6)
    assert np.allclose(table["p_true_sq"] / 5 - mean**2, p_true.var(0), atol=1e-6)


def test_a_scoring_pass_sees_all_and_only_those_of_the_epoch_were_trained_on():
    seen = observations(range(6))
    table = update(
        None, seen, epoch=3, sample_ids_N=np.arange(6), labels_N=None, confidence=0.9,
        trained_T=np.array([1, 4]),
    )  # fmt: skip
    assert table["epoch_seen"].tolist() == [NEVER, 3, NEVER, NEVER, 3, NEVER]
    assert np.array_equal(table["loss"], seen["loss"])


def test_a_non_finite_loss_is_flagged_until_the_next_finite_one():
    assert history({"loss": np.nan})["flags"] == FLAG_NON_FINITE
    assert history({"loss": np.inf}, None)["flags"] == FLAG_NON_FINITE
    assert history({"loss": np.nan}, EASY)["flags"] == 0


def test_without_classes_nothing_is_easy_and_the_scores_say_that_there_are_none():
    table = updated(None, without_classes(range(4)))
    assert not table["easy_streak"].any()
    assert not table["flags"].any()
    assert (table["label"] == -1).all()
    for name in ("confidence", "margin_sum", "p_true_sum", "p_true_sq"):
        assert np.isnan(table[name]).all(), name


def test_labels_come_from_what_training_saw_and_else_from_the_data_set():
    columns = observations([0, 1, 2], labels=[7, -1, -100])
    assert updated(None, columns)["label"].tolist() == [7, -1, -1, -1, -1, -1]
    stated = np.array([1, 2, 3, 4, 5, -100])
    assert updated(None, columns, labels=stated)["label"].tolist() == [7, 2, 3, 4, 5, -1]


def test_of_a_sample_that_an_epoch_saw_twice_the_first_row_counts():
    columns = observations([3, 1, 3], seed=4)
    table = updated(None, columns)
    assert table["n_seen"].tolist() == [0, 1, 0, 1, 0, 0]
    assert table["loss"][3] == columns["loss"][0]


@given(st.permutations(range(12)), st.permutations(range(12)))
def test_the_table_depends_neither_on_the_order_of_the_data_nor_of_the_observations(ids, rows):
    columns = observations(range(12))
    labels = np.arange(12) % 4
    expected = updated(None, columns, ids=range(12), labels=labels)
    shuffled = {name: array[np.array(rows)] for name, array in columns.items()}
    found = updated(None, shuffled, ids=ids, labels=labels[np.array(ids)])
    for name in expected.columns:
        assert found[name].tobytes() == expected[name].tobytes(), name


def test_updating_changes_no_earlier_table():
    first = updated(None, observations(range(6)))
    before = {name: array.copy() for name, array in first.columns.items()}
    updated(first, observations(range(6), seed=9), epoch=1)
    for name, array in before.items():
        assert array.tobytes() == first[name].tobytes(), name


@pytest.mark.parametrize("strange", [6, -1, 2**40])
def test_an_observation_of_a_strange_sample_is_named(strange):
    with pytest.raises(StateMismatch, match=str(strange)):
        updated(None, observations([0, strange]))


def test_a_table_of_another_data_set_is_refused():
    table = updated(None, observations(range(6)))
    with pytest.raises(StateMismatch, match="6 samples and the data set 7"):
        updated(table, observations(range(6)), ids=range(7))
    with pytest.raises(StateMismatch, match="sample id 9"):
        table.keep_by_id(np.array([1, 9]))


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=30, unique=True), st.randoms())
def test_plans_are_found_by_id_in_any_order(ids, random):
    table = updated(None, observations([]), ids=ids)
    keep = np.array([random.random() < 0.5 for _ in ids])
    weight = np.array([random.random() for _ in ids], dtype=np.float32)
    planned = table.with_plan(keep_N=keep, weight_N=weight)
    order = np.argsort(ids)
    assert planned.keep_by_id(np.array(ids)[order]).tolist() == keep.tolist()
    back = np.argsort(order)
    assert planned.keep_by_id(np.array(ids)).tolist() == keep[back].tolist()
    assert planned.weight_by_id(np.array(ids)).tolist() == weight[back].tolist()
    assert table.keep_by_id(np.array(ids)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_a_table_comes_back_from_its_file_bit_by_bit(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("samples") / "t"
    table = updated(updated(None, observations(range(6), seed=seed)), observations([2]), epoch=1)
    write_samples(table, path, metadata={"epoch": "1"})
    found = read_samples(path)
    for name in table.columns:
        assert found[name].dtype == table[name].dtype, name
        assert found[name].tobytes() == table[name].tobytes(), name
    again = updated(found, observations([1], seed=seed), epoch=2)
    assert again["epoch_seen"].tolist() == [0, 2, 1, 0, 0, 0]


def test_a_million_samples_are_updated_in_a_fraction_of_a_second():
    ids = np.arange(1_280_000)
    columns = observations(ids)
    table, spent = None, []
    for epoch in range(3):
        begun = time.process_time()
        table = updated(table, columns, epoch=epoch, ids=ids)
        spent.append(time.process_time() - begun)
    assert min(spent) < 1.0, spent
