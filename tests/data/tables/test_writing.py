"""Tables: what is written is read, bit by bit; what is not whole is never read as numbers."""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.random_observations import observations, without_classes

from epochal.data.errors import BadStore, CorruptObject
from epochal.data.tables import reading as table_reading
from epochal.data.tables import writing as tables
from epochal.data.tables.writing import OBSERVATIONS, SAMPLES, UPDATES, read_table, write_table

UPDATE_COLUMNS = {
    "step": np.array([1, 1, 2, 2]),
    "key": np.array(["train/loss", "gradients/norm"] * 2),
    "value": np.array([0.5, np.inf, np.nan, -0.0]),
}


def written(path, columns, *, schema=OBSERVATIONS, metadata=None):
    write_table(columns, path, schema=schema, metadata=metadata or {})
    return path


def same(one, other):
    """Equal bits, NaN included."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def test_observations_come_back_bit_by_bit_with_their_metadata(tmp_path):
    columns = observations(range(1000))
    columns["loss"][:3] = [np.nan, np.inf, -0.0]
    path = written(tmp_path / "t", columns, metadata={"epoch": "3", "key": "é"})
    table = read_table(path, schema=OBSERVATIONS)
    assert same(table.columns, columns)
    assert table.metadata == {"epoch": "3", "key": "é"}
    assert not any(array.flags.writeable for array in table.columns.values())


def test_a_model_without_classes_has_nan_in_its_columns(tmp_path):
    columns = without_classes(range(5))
    assert same(read_table(written(tmp_path / "t", columns), schema=OBSERVATIONS).columns, columns)


def test_updates_come_back_with_texts_as_keys(tmp_path):
    path = written(tmp_path / "t", UPDATE_COLUMNS, schema=UPDATES)
    columns = read_table(path, schema=UPDATES).columns
    assert columns["key"].tolist() == UPDATE_COLUMNS["key"].tolist()
    assert columns["value"].tobytes() == UPDATE_COLUMNS["value"].tobytes()
    assert pq.ParquetFile(path).schema_arrow.field("key").type == pa.string()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20), st.floats())))
def test_any_updates_come_back_in_their_order(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tables") / "t"
    step, key, value = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        "step": np.array(step, dtype=np.int64),
        "key": np.array(key, dtype=object),
        "value": np.array(value, dtype=np.float64),
    }
    try:
        write_table(columns, path, schema=UPDATES, metadata={})
    except ValueError:  # a lone surrogate is no text that UTF-8 can hold
        assert any("\ud800" <= letter <= "\udfff" for text in key for letter in text)
        return
    found = read_table(path, schema=UPDATES).columns
    assert found["step"].tolist() == list(step)
    assert found["key"].tolist() == list(key)
    assert np.array_equal(found["value"], columns["value"], equal_nan=True)


def test_empty_tables_come_back(tmp_path):
    for schema, columns in (
        (OBSERVATIONS, observations([])),
        (UPDATES, {name: array[:0] for name, array in UPDATE_COLUMNS.items()}),
    ):
        path = written(tmp_path / schema.name, columns, schema=schema)
        assert all(len(array) == 0 for array in read_table(path, schema=schema).columns.values())


def test_equal_columns_give_equal_bytes(tmp_path):
    one = written(tmp_path / "one", observations(range(500)), metadata={"a": "1", "b": "2"})
    other = written(tmp_path / "other", observations(range(500)), metadata={"b": "2", "a": "1"})
    assert one.read_bytes() == other.read_bytes()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_rows_are_sorted_by_id_and_the_first_of_an_id_counts(tmp_path_factory, ids):
    columns = observations(ids)
    columns["loss"] = np.arange(len(ids), dtype=np.float32)
    path = written(tmp_path_factory.mktemp("tables") / "t", columns)
    found = read_table(path, schema=OBSERVATIONS).columns
    assert found["sample_id"].tolist() == sorted(set(ids))
    assert found["loss"].tolist() == [ids.index(one) for one in sorted(set(ids))]


def test_the_format_is_the_one_that_was_measured(tmp_path):
    path = written(tmp_path / "t", observations(range(5000)))
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {chunk.compression for chunk in chunks.values()} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in chunks["sample_id"].encodings
    assert "BYTE_STREAM_SPLIT" in chunks["loss"].encodings
    assert not chunks["loss"].has_dictionary_page
    assert chunks["label"].has_dictionary_page


def test_duckdb_reads_a_table_as_it_is(tmp_path):
    columns = observations(range(100))
    path = written(tmp_path / "t.parquet", columns)
    [(count, right)] = duckdb.sql(
        f"select count(*), sum(correct::int) from '{path}' where loss >= 0"
    ).fetchall()
    assert (count, right) == (100, int(columns["correct"].sum()))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loss": None}, "missing: ['loss']"),
        ({"lost": np.zeros(4)}, "unknown: ['lost']"),
        ({"loss": np.zeros(3, dtype=np.float32)}, "one shape"),
        ({"loss": np.array(["a"] * 4)}, "expected float32"),
        ({"sample_id": np.arange(4.0)}, "expected int64"),
        ({"label": np.full(4, 2**63, dtype=np.uint64)}, "int64"),
        ({"correct": np.zeros(4)}, "expected bool"),
    ],
)
def test_columns_that_do_not_fit_are_not_written(tmp_path, change, text):
    columns = {**observations(range(4)), **change}
    columns = {name: array for name, array in columns.items() if array is not None}
    with pytest.raises(ValueError) as caught:
        written(tmp_path / "t", columns)
    assert text in str(caught.value)
    assert not (tmp_path / "t").exists()


def test_a_text_too_long_for_a_key_is_not_written(tmp_path):
    columns = {**UPDATE_COLUMNS, "key": np.array(["x" * 2000] * 4)}
    with pytest.raises(ValueError, match="1024 characters"):
        written(tmp_path / "t", columns, schema=UPDATES)


def test_narrower_integers_and_wider_floats_are_taken_where_they_fit(tmp_path):
    columns = observations(range(4))
    columns["loss"] = columns["loss"].astype(np.float64)
    columns["label"] = columns["label"].astype(np.int32)
    found = read_table(written(tmp_path / "t", columns), schema=OBSERVATIONS).columns
    assert found["loss"].dtype == np.float32
    assert found["label"].dtype == np.int64


def error_of(path, *, schema=OBSERVATIONS, kind=CorruptObject, **more):
    with pytest.raises(kind) as caught:
        read_table(path, schema=schema, **more)
    assert str(path) in str(caught.value)
    return str(caught.value)


def other_program(path, table, **more):
    pq.write_table(table, path, **more)
    return path


def test_no_flipped_bit_is_read_as_a_number(tmp_path):
    columns = observations(range(3000))
    data = written(tmp_path / "t", columns).read_bytes()
    path, rng = tmp_path / "flipped", np.random.default_rng(0)
    caught = 0
    for _ in range(300):
        position, bit = int(rng.integers(len(data))), int(rng.integers(8))
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        path.write_bytes(bytes(flipped))
        try:
            found = read_table(path, schema=OBSERVATIONS)
        except (CorruptObject, BadStore):
            caught += 1
        else:
            assert same(found.columns, columns), (position, bit)
    assert caught > 200


@pytest.mark.parametrize("length", [0, 3, 100, -1, -5, -100])
def test_a_file_that_was_cut_is_damaged(tmp_path, length):
    path = written(tmp_path / "t", observations(range(100)))
    path.write_bytes(path.read_bytes()[:length])
    error_of(path)


def test_a_missing_file_is_missing_and_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "t", schema=OBSERVATIONS)


def test_a_missing_column_is_named_beside_those_found(tmp_path):
    path = other_program(tmp_path / "t", pa.table({"sample_id": [1], "lost": [0.5]}))
    text = error_of(path)
    assert "loss" in text
    assert "found sample_id, lost" in text


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ({"step": [1.0]}, "'step' is double, expected int64"),
        ({"value": [1]}, "'value' is int64, expected double"),
        ({"key": [1]}, "'key' is int64, expected string"),
        ({"value": ["a"]}, "'value' is string, expected double"),
    ],
)
def test_another_type_is_named(tmp_path, column, problem):
    table = pa.table({"step": [1], "key": ["a"], "value": [0.5], **column})
    assert problem in error_of(other_program(tmp_path / "t", table), schema=UPDATES)


def test_empty_cells_are_damage(tmp_path):
    table = pa.table({"step": pa.array([1, None]), "key": ["a", "b"], "value": [0.5, 1.0]})
    assert "'step' has 1 empty" in error_of(other_program(tmp_path / "t", table), schema=UPDATES)


def test_a_table_of_another_kind_is_refused(tmp_path):
    path = written(tmp_path / "t", UPDATE_COLUMNS, schema=UPDATES)
    assert "'updates', expected one of 'observations'" in error_of(path)


def test_a_newer_version_is_refused_and_says_what_to_do(tmp_path):
    table = pa.table({"step": [1], "key": ["a"], "value": [0.5]})
    newer = {"epochal.schema": "updates", "epochal.schema_version": "2"}
    path = other_program(tmp_path / "t", table.replace_schema_metadata(newer))
    assert "newer version" in error_of(path, schema=UPDATES, kind=BadStore)
    newer["epochal.schema_version"] = "x"
    path = other_program(tmp_path / "t", table.replace_schema_metadata(newer))
    assert "'x'" in error_of(path, schema=UPDATES)


def test_a_table_of_another_program_is_read_if_it_has_the_columns(tmp_path):
    table = pa.table({"step": [1, 2], "key": ["a", "b"], "value": [0.5, 1.0], "more": [1, 2]})
    found = read_table(other_program(tmp_path / "t", table), schema=UPDATES)
    assert list(found.columns) == ["step", "key", "value"]
    assert found.metadata == {}
    encoded = table.set_column(1, "key", table["key"].dictionary_encode())
    found = read_table(other_program(tmp_path / "t", encoded), schema=UPDATES)
    assert found.columns["key"].tolist() == ["a", "b"]


def test_unsorted_ids_are_damage(tmp_path):
    columns = observations(range(4))
    table = pa.table({**columns, "sample_id": np.array([0, 2, 1, 3])})
    assert "not sorted" in error_of(other_program(tmp_path / "t", table))


def test_a_bomb_is_refused_by_its_footer_and_not_read(tmp_path, monkeypatch):
    rows = 100_000
    table = pa.table(
        {"step": np.zeros(rows, dtype=int), "key": ["x" * 1000] * rows, "value": np.zeros(rows)}
    )
    path = other_program(tmp_path / "t", table, use_dictionary=False, compression="zstd")
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(table_reading, "to_numpy", None)
    assert "claims" in error_of(path, schema=UPDATES)
    assert "claims 100000 rows" in error_of(path, schema=UPDATES, max_rows=1000)


def test_columns_are_read_over_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 64)
    columns = observations(range(1000))
    path = written(tmp_path / "t", columns)
    assert pq.ParquetFile(path).metadata.num_row_groups == 16
    assert same(read_table(path, schema=OBSERVATIONS).columns, columns)


def test_the_schemas_have_the_columns_that_people_query():
    assert SAMPLES.names[0] == OBSERVATIONS.names[0] == "sample_id"
    assert {"epoch_seen", "n_seen", "easy_streak", "margin_sum", "keep", "weight"} <= set(
        SAMPLES.names
    )
    assert UPDATES.names == ("step", "key", "value")
