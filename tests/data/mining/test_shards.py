"""Mining from file to file in shards: the same bytes as of the whole tables in memory."""

from pathlib import Path

import numpy as np
import pytest
from support.runs.policy_runs import POLICIES, config_of, context_of, learned, own, planned
from support.stores.sample_files import read_samples, write_samples

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.data.mining.plan import updated
from epochal.data.mining.shards import mine_files
from epochal.data.policies.shared.label_noise import noise_rate, num_suspects
from epochal.data.samples.table import read_plan
from epochal.data.tables import reading as table_reading
from epochal.data.tables.writing import OBSERVATIONS, write_table

COUNT, EPOCHS = 1000, 8
IDS = {
    "by index": np.arange(COUNT),
    "beyond 2^24": 2**24 - 5 + np.arange(COUNT),
    "beyond 2^40, in no order": np.random.default_rng(3).permutation(
        2**40 + 7919 * np.arange(COUNT)
    ),
}
LABELS = {
    "three": np.arange(COUNT) % 3,
    "some unknown": np.arange(COUNT) % 5 - 1,
}


def mined_whole(previous, columns, config, *, ids, epoch, epochs, scores=None):
    """The table in memory: updated and planned by all of its rows at once."""
    table = updated(previous, columns, config, sample_ids_N=ids, epoch=epoch, seed=7, scores=scores)
    return planned(table, config, context_of(config, epoch + 1, epochs=epochs, seed=7))[1]


def observed(positions, ids, labels, epoch):
    columns = learned(positions, seed=1, epoch=epoch + 8, labels=labels)
    mislabelled = positions % 40 == 0  # the model is sure of another class
    columns["correct"] &= ~mislabelled
    columns["margin"][mislabelled] = -3
    return {**columns, "sample_id": ids[positions]}


def whole_and_sharded(folder: Path, config, *, ids, labels, shard_rows, epochs=EPOCHS):
    """Per epoch: the table made in memory and the file made in shards, each from its own kind."""
    table, previous, positions = None, None, np.arange(len(ids))
    for epoch in range(epochs - 1):
        columns = observed(positions, ids, labels, epoch)
        seen, made, expected = (folder / f"{name}-{epoch}" for name in ("seen", "made", "whole"))
        write_table(columns, seen, schema=OBSERVATIONS, metadata={})
        mined = mine_files(
            previous, seen, made, config, sample_ids_N=ids, epoch=epoch, epochs=epochs, seed=7,
            own=own, metadata=str_fields, shard_rows=shard_rows,
        )  # fmt: skip
        table = mined_whole(table, columns, config, ids=ids, epoch=epoch, epochs=epochs)
        write_samples(table, expected, str_fields(mined))
        yield table, mined, made, expected
        previous = made
        positions = np.flatnonzero(table.keep_by_id(ids))


def str_fields(mined):
    return {"kept": str(mined.kept), "suspects": str(mined.suspects), "noise": str(mined.noise)}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("shard_rows", [64, 333, 1000])
def test_shards_give_the_bytes_of_the_whole(tmp_path, name, shard_rows):
    config = config_of(name, floor=0.3)
    for table, mined, made, expected in whole_and_sharded(
        tmp_path, config, ids=IDS["by index"], labels=LABELS["three"], shard_rows=shard_rows
    ):
        assert made.read_bytes() == expected.read_bytes()
        assert mined.kept == table["keep"].sum()
        assert mined.noise == noise_rate(table.columns)


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("floor", [0.1, 0.9])
def test_large_ids_in_any_order_and_the_floor_of_each_class(tmp_path, kind, labels, floor):
    config = config_of("easy_skip", confidence=0.3, floor=floor)
    kept = []
    for table, _, made, expected in whole_and_sharded(
        tmp_path, config, ids=IDS[kind], labels=LABELS[labels], shard_rows=100
    ):
        assert made.read_bytes() == expected.read_bytes()
        assert read_samples(made)["sample_id"].tolist() == sorted(IDS[kind].tolist())
        kept.append(table["keep"].mean())
    assert min(kept) < 1


@pytest.mark.parametrize("name", ["easy_skip", "importance", "cvnets", "custom"])
def test_scores_of_a_pass_give_the_bytes_of_the_whole_too(tmp_path, name):
    config = config_of(name, scoring={"every": 2})
    table, previous, positions = None, None, np.arange(COUNT)
    ids, labels = IDS["beyond 2^40, in no order"], LABELS["three"]
    for epoch in range(5):
        seen, made, passed, expected = (tmp_path / f"{one}-{epoch}" for one in "abcd")
        columns = observed(positions, ids, labels, epoch)
        scores = observed(np.arange(COUNT), ids, labels, epoch + 1) if epoch % 2 else None
        write_table(columns, seen, schema=OBSERVATIONS, metadata={})
        if scores is not None:
            write_table(scores, passed, schema=OBSERVATIONS, metadata={})
        mined = mine_files(
            previous, seen, made, config, sample_ids_N=ids, epoch=epoch, epochs=EPOCHS, seed=7,
            own=own, metadata=str_fields, scores=None if scores is None else passed, shard_rows=99,
        )  # fmt: skip
        table = mined_whole(
            table, columns, config, ids=ids, epoch=epoch, epochs=EPOCHS, scores=scores
        )
        write_samples(table, expected, str_fields(mined))
        assert made.read_bytes() == expected.read_bytes()
        assert set(np.sort(ids)[table["epoch_seen"] == epoch]) == set(ids[positions])
        assert (table["n_seen"] == (epoch + 1) // 2).all()
        previous = made
        positions = np.flatnonzero(table.keep_by_id(ids))
    assert len(positions) < COUNT


@pytest.mark.parametrize("name", ["easy_skip", "importance", "cvnets"])
def test_suspects_are_those_of_the_whole(tmp_path, name):
    config = config_of(name, label_noise="drop", noise_from=2)
    found = []
    for table, mined, made, expected in whole_and_sharded(
        tmp_path, config, ids=IDS["by index"], labels=LABELS["three"], shard_rows=64
    ):
        assert made.read_bytes() == expected.read_bytes()
        assert mined.suspects == num_suspects(table.columns)
        found.append(mined.suspects)
    assert max(found) > 0


def test_the_plan_alone_is_read_without_the_scores(tmp_path):
    *_, (table, _, made, _) = whole_and_sharded(
        tmp_path,
        config_of("infobatch"),
        ids=IDS["by index"],
        labels=LABELS["three"],
        shard_rows=500,
    )
    plan = read_plan(made)
    assert sorted(plan.columns) == ["keep", "sample_id", "weight"]
    for name, column in plan.columns.items():
        assert np.array_equal(column, table[name])


def mined_once(tmp_path, *, ids=IDS["by index"], observations=None, previous=None, rows=100):
    columns = observed(np.arange(COUNT), IDS["by index"], LABELS["three"], 0)
    seen, made = tmp_path / "seen", tmp_path / "made"
    write_table(observations or columns, seen, schema=OBSERVATIONS, metadata={})
    mine_files(
        previous, seen, made, config_of("easy_skip"), metadata=str_fields, sample_ids_N=ids,
        epoch=0, epochs=4, seed=1, shard_rows=rows,
    )  # fmt: skip
    return made


@pytest.mark.parametrize(
    "ids", [np.arange(COUNT - 1), np.arange(1, COUNT + 1), 2 * np.arange(COUNT)]
)
def test_observations_of_other_samples_are_refused(tmp_path, ids):
    with pytest.raises((StateMismatch, CorruptObject), match="data set|sample id|rows"):
        mined_once(tmp_path, ids=ids)


@pytest.mark.parametrize("ids", [np.arange(COUNT + 50), np.arange(7, COUNT + 7)])
def test_a_table_of_other_samples_is_refused(tmp_path, ids):
    previous = mined_once(tmp_path).rename(tmp_path / "previous")
    nobody = {
        name: array[:0]
        for name, array in observed(ids[:1] * 0, IDS["by index"], LABELS["three"], 0).items()
    }
    with pytest.raises(StateMismatch, match="data set"):
        mined_once(tmp_path, ids=ids, previous=previous, observations=nobody)


def test_who_is_called_after_each_shard_may_end_it(tmp_path):
    def enough():
        raise KeyboardInterrupt

    columns = observed(np.arange(COUNT), IDS["by index"], LABELS["three"], 0)
    write_table(columns, tmp_path / "seen", schema=OBSERVATIONS, metadata={})
    with pytest.raises(KeyboardInterrupt):
        mine_files(
            None, tmp_path / "seen", tmp_path / "made", config_of("easy_skip"), epoch=0, epochs=4,
            seed=1, metadata=str_fields, sample_ids_N=np.arange(COUNT), on_shard=enough,
        )  # fmt: skip
    assert not (tmp_path / "made").exists()


def test_large_tables_are_read_without_a_second_copy(tmp_path, monkeypatch):
    made = mined_once(tmp_path)
    whole = read_samples(made)
    monkeypatch.setattr(table_reading, "_WHOLE_ROWS", 64)
    parts = read_samples(made)
    for name, column in whole.columns.items():
        assert np.array_equal(column, parts[name], equal_nan=column.dtype.kind == "f")
        assert parts[name].dtype == column.dtype
        assert not parts[name].flags.writeable
