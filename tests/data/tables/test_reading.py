"""Reading in pieces: the same rows as at once, and an order that no piece may break."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.numbers.random_observations import observations

from epochal.data.errors import CorruptObject, Unavailable
from epochal.data.tables import reading
from epochal.data.tables.reading import TableReader
from epochal.data.tables.writing import OBSERVATIONS, read_table, write_table

IDS = np.arange(0, 100, 5)


@pytest.fixture(params=[3, 1 << 16])
def path(request, tmp_path, monkeypatch):
    """A table of twenty rows, decoded by so many at once."""
    monkeypatch.setattr(reading, "_BATCH_ROWS", request.param)
    write_table(observations(IDS), tmp_path / "t", schema=OBSERVATIONS, metadata={})
    return tmp_path / "t"


@pytest.mark.parametrize("counts", [(20,), (1, 7, 12), (5, 0, 14, 9)])
def test_pieces_of_any_size_are_the_whole_table(path, counts):
    whole = read_table(path, schema=OBSERVATIONS).columns
    with TableReader(path, schema=OBSERVATIONS) as reader:
        pieces = [reader.take(count) for count in counts]
        assert (reader.rows, reader.rows_taken) == (20, 20)
    for name, column_N in whole.items():
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), column_N), name


def test_rows_through_an_id_are_those_up_to_it_and_with_it(path):
    with TableReader(path, schema=OBSERVATIONS) as reader:
        pieces = [reader.take_through(last)["sample_id"].tolist() for last in (-1, 20, 22, 99, 200)]
    assert pieces == [[], [0, 5, 10, 15, 20], [], list(range(25, 100, 5)), []]


def test_rows_that_are_unsorted_between_two_pieces_are_damage(tmp_path):
    write_table(observations(IDS), tmp_path / "t", schema=OBSERVATIONS, metadata={})
    table = pq.read_table(tmp_path / "t")
    pq.write_table(
        table.take([*range(10), *range(9, 20)]),
        tmp_path / "t",
        compression="zstd",
        write_page_checksum=True,
    )
    with TableReader(tmp_path / "t", schema=OBSERVATIONS) as reader:
        reader.take(10)
        with pytest.raises(CorruptObject, match="not sorted by 'sample_id'"):
            reader.take(10)


def test_memory_that_runs_out_is_no_fault_of_the_table(path, monkeypatch):
    def fail(*_, **__):
        raise pa.ArrowMemoryError("malloc of size 1024 failed")

    monkeypatch.setattr(pq.ParquetFile, "read", fail)
    with pytest.raises(Unavailable, match="memory ran out") as raised:
        read_table(path, schema=OBSERVATIONS)
    assert not isinstance(raised.value, CorruptObject)
