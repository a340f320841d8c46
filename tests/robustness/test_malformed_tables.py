"""Parquet from an enemy: no wrong number, no gigabytes, no end of the process."""

import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.malformed_bytes import mangled, told
from support.random_observations import observations

from epochal.data.errors import BadStore, CorruptObject
from epochal.data.samples.table import update
from epochal.data.tables.parquet_footer import CompactReader, Layout, LayoutError, ThriftError
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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCHEMAS)
def test_no_flipped_bit_gives_another_number(files, name, tmp_path):
    data, wanted = files[name], columns_of(SCHEMAS[name])
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            found = read(tmp_path / "flipped", bytes(flipped), SCHEMAS[name])
            assert found is None or same(found, wanted), (position, bit)


def test_a_dictionary_without_its_words_is_damage(files, tmp_path):
    # The count of words stands in a page's header, which no checksum covers.
    data = files["updates"]
    place = next(
        place
        for place in range(4, footer_start(data))
        if dictionary_header(data, place) == {1: 2, 2: 0, 3: False}
    )
    for count in (b"\x00", b"\x02", b"\x06"):  # 0, 1 and 3 words instead of 2
        header = data[place : place + 60].replace(b"\x3c\x15\x04", b"\x3c\x15" + count, 1)
        changed = data[:place] + header + data[place + 60 :]
        assert changed != data
        assert read(tmp_path / "t", changed, UPDATES) is None


def dictionary_header(data, place):
    """What the page header at `place` says of a dictionary, or None if there is no such header."""
    try:
        found = CompactReader(data, place).struct()
    except ThriftError:
        return None
    return found.get(7) if found.get(1) == 2 else None


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_that_was_cut_anywhere_or_goes_on_is_damage(files, name, tmp_path):
    data = files[name]
    for length in [*range(0, len(data), 37), len(data) - 1]:
        assert read(tmp_path / "cut", data[:length], SCHEMAS[name]) is None, length
    for tail in (b"\0", b"PAR1", data):
        assert read(tmp_path / "long", data + tail, SCHEMAS[name]) is None, tail[:4]


@given(st.sampled_from(list(SCHEMAS)), st.data())
@settings(max_examples=150, deadline=None)
def test_mangled_tables_are_refused_or_the_same(files, tmp_path_factory, name, drawn):
    data = drawn.draw(mangled(files[name]))
    found = read(tmp_path_factory.mktemp("mangled") / "t", data, SCHEMAS[name])
    assert found is None or same(found, columns_of(SCHEMAS[name]))


@given(st.binary(max_size=200))
@example(b"\x19\xf5\xff\xff\xff\xff\x0f")  # a list that claims 4 billion items
@example(b"\x1c" * 200)  # structures in structures
@example(b"\x18\xff\xff\xff\xff\x7f")  # a text that claims gigabytes
@example(b"\x15\x00\x05\x02\x00\x00")  # a field that stands twice
@example(b"\x16" + b"\xff" * 20)  # a number without an end
@example(b"\x1d\x00")  # a type that there is not
@settings(max_examples=300)
def test_any_bytes_are_a_structure_or_refused(data):
    reader = CompactReader(data)
    try:
        found = reader.struct()
    except ThriftError:
        return
    assert all(isinstance(number, int) for number in found)
    assert reader.position <= len(data)


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


@pytest.mark.parametrize("version", ["0", "01", "1" * 5000, "²", "-1", "1.0", ""])
def test_a_version_that_is_no_number_is_named(tmp_path, version):
    table = updates_table().replace_schema_metadata(
        {"epochal.schema": "updates", "epochal.schema_version": version}
    )
    assert "names the version" in refused(tmp_path / "t", table)


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


def test_pages_that_unpack_to_more_than_the_footer_says_are_refused(tmp_path):
    path = tmp_path / "t"
    rows = 100
    table = pa.table(
        {"step": np.arange(rows), "key": ["x" * 200_000] * rows, "value": np.zeros(rows)}
    )
    pq.write_table(table, path, compression="zstd", use_dictionary=False, store_schema=False)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(CorruptObject, match="claims 20"):
            read_table(path, schema=UPDATES)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_file_of_ours_has_a_checksum_in_each_page(tmp_path):
    text = refused(tmp_path / "t", tagged(updates_table()), compression="zstd")
    assert "no checksum" in text


def test_a_file_of_ours_has_the_compression_that_we_write(tmp_path):
    table = tagged(updates_table())
    text = refused(tmp_path / "t", table, compression="none", write_page_checksum=True)
    assert "compression 0" in text


def test_a_footer_that_ends_pyarrow_is_refused_before_pyarrow_sees_it(files, tmp_path):
    # With pyarrow 25.0, looking at the columns of `ParquetFile.metadata` aborts the process at one
    # of these flips, in the size statistics of a column.
    program = (
        "import sys; from pathlib import Path; from epochal.data.errors import EpochalError\n"
        "from epochal.data.tables.writing import UPDATES, read_table\n"
        "path = Path(sys.argv[1]); data = path.read_bytes(); other = path.with_name('flipped')\n"
        "start = len(data) - 8 - int.from_bytes(data[-8:-4], 'little')\n"
        "for position in range(start, len(data)):\n"
        "    flipped = bytearray(data); flipped[position] ^= 1 << 5\n"
        "    other.write_bytes(flipped)\n"
        "    try: read_table(other, schema=UPDATES)\n"
        "    except EpochalError: pass\n"
        "print('alive')\n"
    )
    path = tmp_path / "t"
    path.write_bytes(files["updates"])
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]


def test_a_layout_says_what_its_columns_unpack_to(files, tmp_path):
    path = tmp_path / "t"
    path.write_bytes(files["updates"])
    with path.open("rb") as stream:
        layout = Layout(stream)
        assert layout.rows == ROWS
        assert layout.metadata[b"epochal.schema"] == b"updates"
        whole = layout.page_bytes(UPDATES.names, whole=True)
        assert whole == layout.page_bytes(UPDATES.names, whole=False)
        assert ROWS * 8 <= layout.page_bytes(["value"], whole=False) < whole
    path.write_bytes(b"PAR1" + files["updates"][-40:])
    with path.open("rb") as stream, pytest.raises(LayoutError):
        Layout(stream)
