"""Parquet that was damaged, or that another program wrote: refused, or the same numbers."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.random_observations import observations
from support.stores.malformed_bytes import mangled, told

from epochal.data.errors import BadStore, CorruptObject
from epochal.data.samples.table import update
from epochal.data.tables.writing import OBSERVATIONS, SAMPLES, UPDATES, read_table, write_table

ROWS = 60


def columns_of(schema):
    seen = observations(range(ROWS))
    if schema is OBSERVATIONS:
        return seen
    if schema is SAMPLES:
        ids = np.arange(ROWS)
        return dict(
            update(
                None, seen, epoch=0, sample_ids_N=ids, labels_N=None, confidence=0.5
            ).columns
        )  # fmt: skip
    return {
        "step": np.repeat(np.arange(1, ROWS // 2 + 1), 2),
        "key": np.array(["train/loss", "gradients/norm"] * (ROWS // 2), dtype=object),
        "value": np.linspace(0, 1, ROWS),
    }


SCHEMAS = {schema.name: schema for schema in (OBSERVATIONS, SAMPLES, UPDATES)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name of a schema → the bytes of such a table."""
    made = {}
    for name, schema in SCHEMAS.items():
        path = tmp_path_factory.mktemp("tables") / name
        write_table(columns_of(schema), path, schema=schema, metadata={"epoch": "3"})
        made[name] = path.read_bytes()
    return made


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        np.array_equal(found[name], wanted[name])
        if wanted[name].dtype == object
        else found[name].tobytes() == wanted[name].tobytes()
        for name in wanted
    )


def read(path, data, schema):
    """The columns, or None if the file is refused in our own words, by its name."""
    path.write_bytes(data)
    try:
        return read_table(path, schema=schema, max_rows=10_000).columns
    except (CorruptObject, BadStore) as error:
        told(error, path)
        return None


def footer_start(data):
    return len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]


@pytest.mark.parametrize("name", SCHEMAS)
def test_one_flipped_bit_gives_no_other_number(files, name, tmp_path):
    data, wanted = files[name], columns_of(SCHEMAS[name])
    refused = 0
    # Some bytes of the pages; more of the footer, up to its copy of the schema.
    start = footer_start(data)
    text = data.find(b"ARROW:schema", start)
    positions = [*range(0, start, start // 80), *range(start, text, (text - start) // 160)]
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 1 << (position * 7 % 8)
        found = read(tmp_path / "flipped", bytes(flipped), SCHEMAS[name])
        refused += found is None
        assert found is None or same(found, wanted), position
    assert refused > len(positions) // 2


ENDS_PYARROW = {("updates", 964, 5)}
"""Where a flipped bit makes pyarrow 25.0 end the process: docs/security.md, "Not promised"."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCHEMAS)
def test_no_flipped_bit_gives_another_number(files, name, tmp_path):
    data, wanted = files[name], columns_of(SCHEMAS[name])
    for position in range(len(data)):
        for bit in range(8):
            if (name, position, bit) in ENDS_PYARROW:
                continue
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            found = read(tmp_path / "flipped", bytes(flipped), SCHEMAS[name])
            assert found is None or same(found, wanted), (position, bit)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_that_was_cut_anywhere_or_goes_on_is_damage(files, name, tmp_path):
    data = files[name]
    for length in [*range(0, len(data), 37), len(data) - 1]:
        assert read(tmp_path / "cut", data[:length], SCHEMAS[name]) is None, length
    for tail in (b"\0", b"PAR1"):
        assert read(tmp_path / "long", data + tail, SCHEMAS[name]) is None, tail


@given(st.sampled_from(list(SCHEMAS)), st.data())
@settings(max_examples=150, deadline=None)
def test_mangled_pages_are_refused_or_the_same(files, tmp_path_factory, name, drawn):
    end = footer_start(files[name])
    data = drawn.draw(mangled(files[name][:end])) + files[name][end:]
    found = read(tmp_path_factory.mktemp("mangled") / "t", data, SCHEMAS[name])
    assert found is None or same(found, columns_of(SCHEMAS[name]))


def tagged(table, schema=UPDATES):
    """As if we had written it."""
    tags = {"epochal.schema": schema.name, "epochal.schema_version": "1"}
    return table.replace_schema_metadata(tags)


def updates_table(**columns):
    return pa.table({"step": [1], "key": ["a"], "value": [0.5], **columns})


def refused(path, table, **options):
    pq.write_table(table, path, **options)
    with pytest.raises(CorruptObject) as caught:
        read_table(path, schema=UPDATES, max_rows=1_000_000)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("step", pa.array([[1]])),
        ("step", pa.array([{"a": 1}])),
        ("step", pa.array([1], pa.uint64())),
        ("step", pa.array([1], pa.timestamp("ms"))),
        ("step", pa.array([None])),
        ("step", pa.array(["1"])),
        ("step", pa.array(["1"]).dictionary_encode()),
        ("value", pa.array([1], pa.decimal128(5, 2))),
        ("value", pa.array([0.5], pa.float32())),
        ("key", pa.array([b"\xff"])),
        ("key", pa.array([["a"]])),
        ("key", pa.array([1]).dictionary_encode()),
        ("key", pa.array(["a"], pa.string_view())),
    ],
)
def test_a_column_of_another_or_a_nested_type_is_named(tmp_path, column, values):
    assert repr(column) in refused(tmp_path / "t", updates_table(**{column: values}))


def test_a_text_that_is_no_utf8_is_damage(tmp_path):
    offsets = pa.py_buffer(struct.pack("<ii", 0, 2))
    words = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    for use_dictionary in (True, False):
        refused(tmp_path / "t", updates_table(key=words), use_dictionary=use_dictionary)


@pytest.mark.parametrize("version", ["1" * 5000, "\u00b2", "x", "1.0", ""])
def test_a_version_that_is_no_number_is_damage(tmp_path, version):
    refused(
        tmp_path / "t",
        updates_table().replace_schema_metadata(
            {"epochal.schema": "updates", "epochal.schema_version": version}
        ),
    )


def test_metadata_that_is_no_text_is_damage(tmp_path):
    refused(tmp_path / "t", updates_table().replace_schema_metadata({b"epochal.x": b"\xff"}))


def test_rows_without_end_are_refused_by_their_number(tmp_path):
    rows = 2_000_000
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), ["a"])
    table = pa.table({"step": np.zeros(rows, dtype=int), "key": word, "value": np.zeros(rows)})
    text = refused(tmp_path / "t", table, compression="zstd")
    assert "claims 2000000 rows, expected at most 1000000" in text
    assert (tmp_path / "t").stat().st_size < 100_000


def test_one_long_word_in_each_row_is_never_written_out(tmp_path):
    rows, word = 400_000, "x" * 1000
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int32)), [word])
    table = pa.table({"step": np.arange(rows), "key": words, "value": np.zeros(rows)})
    pq.write_table(table, tmp_path / "t", compression="zstd", store_schema=False)
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    peak = pool.max_memory()
    found = read_table(tmp_path / "t", schema=UPDATES, max_rows=rows).columns["key"]
    assert found[0] is found[-1]
    assert found[0] == word
    assert (pool.max_memory() or 0) <= max(peak or 0, before + (100 << 20)), "400 MB of one word"


def test_pages_that_unpack_to_more_than_such_rows_have_are_refused_unread(tmp_path):
    path = tmp_path / "t"
    rows = 100
    table = pa.table(
        {"step": np.arange(rows), "key": ["x" * 2_000_000] * rows, "value": np.zeros(rows)}
    )
    pq.write_table(table, path, compression="zstd", use_dictionary=False, store_schema=False)
    assert path.stat().st_size < 100_000
    del table
    before, peak = pa.total_allocated_bytes(), pa.default_memory_pool().max_memory()
    with pytest.raises(CorruptObject, match="claims 200"):
        read_table(path, schema=UPDATES)
    assert pa.default_memory_pool().max_memory() <= max(peak, before + (16 << 20))


def test_a_file_of_ours_has_the_compression_that_we_write(tmp_path):
    table = tagged(updates_table())
    text = refused(tmp_path / "t", table, compression="none", write_page_checksum=True)
    assert "compression UNCOMPRESSED, expected byte 4 and ZSTD" in text


def test_a_footer_that_takes_one_column_for_another_is_damage(files, tmp_path):
    """Both are floats of as many rows, and the pages' checksums are right."""
    data, footer = files["samples"], footer_start(files["samples"])
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    place = {
        chunk.path_in_schema: b"\x26" + varint(chunk.data_page_offset)  # field 9, an i64
        for chunk in map(group.column, range(group.num_columns))
    }
    assert data.count(place["margin"], footer) == 1
    changed = data[:footer] + data[footer:].replace(place["margin"], place["el2n"])
    assert read(tmp_path / "t", changed, SAMPLES) is None


def varint(value):
    """A positive number as Thrift's compact protocol writes it."""
    data, rest = b"", 2 * value
    while rest > 127:
        data, rest = data + bytes([rest & 127 | 128]), rest >> 7
    return data + bytes([rest])
