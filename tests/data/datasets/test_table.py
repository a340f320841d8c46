"""Tables: types of columns, parts, what is missing, and where a wrong cell lies."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochal.data import datasets
from epochal.data.config.dataset import BatchNames
from epochal.data.datasets.split import read_split, split_rows
from epochal.data.datasets.table import table
from epochal.data.errors import DataError
from epochal.data.loading.items import in_tensors
from epochal.data.loading.named_items import named

HOUSES = "area,rooms,kind,price,sold\n" + "".join(
    f"{50 + row},{row % 4},{'flat' if row % 3 else 'villa'},{row * 1.5},{row % 2}\n"
    for row in range(30)
)


@pytest.fixture
def houses(tmp_path):
    path = tmp_path / "houses.csv"
    path.write_text(HOUSES)
    return str(path)


def refused(*arguments, **options):
    with pytest.raises(DataError) as caught:
        table(*arguments, **options)
    return str(caught.value)


def test_measured_numbers_are_values_and_whole_numbers_and_texts_are_classes(houses):
    numbers = ["area", "rooms"]
    features, prices = table(houses, "price", numbers).tensors
    assert (features.dtype, features.shape) == (torch.float32, (30, 2))
    assert features[3].tolist() == [53, 3]
    assert (prices.dtype, prices[3]) == (torch.float32, 4.5)
    sold = table(houses, "sold", numbers)
    assert (sold.tensors[1].dtype, sold.targets[:3].tolist()) == (torch.int64, [0, 1, 0])
    kinds = table(houses, "kind", numbers)
    assert kinds.classes == ["flat", "villa"]
    assert kinds.targets[:3].tolist() == [1, 0, 0]
    assert table(houses, "kind", numbers, classes=["villa", "flat"]).targets[0] == 0
    assert table(houses, "rooms", ["area"], task="regression").tensors[1].dtype == torch.float32
    assert table(houses, ["price", "rooms"], ["area"]).tensors[1].shape == (30, 2)
    assert table(houses, ["price"], ["area"]).tensors[1].shape == (30, 1)


def test_csv_tsv_parquet_arrow_and_feather_of_one_table_are_one_data_set(houses, tmp_path):
    whole = pa.csv.read_csv(houses)
    (tmp_path / "houses.tsv").write_text(HOUSES.replace(",", "\t"))
    pa.parquet.write_table(whole, tmp_path / "houses.parquet", row_group_size=7)
    pa.feather.write_feather(whole, tmp_path / "houses.feather")
    with pa.ipc.new_stream(str(tmp_path / "houses.arrow"), whole.schema) as stream:
        stream.write_table(whole)
    digests = {
        table(str(tmp_path / f"houses.{kind}"), "sold", ["area", "price"]).fingerprint()
        for kind in ("csv", "tsv", "parquet", "feather", "arrow")
    }
    assert len(digests) == 1


def test_a_folder_is_one_table_and_a_sample_is_found_in_its_file(tmp_path):
    for number in range(3):
        (tmp_path / f"part-{number}.csv").write_text(f"x,y\n{number},0.5\n{number}.5,1.5\n")
    rows = table(str(tmp_path), "y")
    assert rows.tensors[0].flatten().tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert rows.path_of(3) == "part-1.csv row 1"
    assert len(table(str(tmp_path / "part-[01].csv"), "y")) == 4
    before = rows.stamp()
    (tmp_path / "part-1.csv").write_text("x,y\n1,0.5\n")
    assert table(str(tmp_path), "y").stamp() != before
    assert table(f"file://{tmp_path}", "y").path_of(0) == "part-0.csv row 0"


def test_a_table_is_gathered_as_fast_as_tensors_and_keeps_what_it_tells(houses):
    rows = table(houses, "kind", ["area"])
    assert in_tensors(rows, np.arange(3)) is not None
    masked = table(houses, "price", ["area"], mask="sold")
    assert sorted(masked[0]) == ["input", "mask", "target"]
    names = named(masked, BatchNames(input="input", target="mask"), field="train_data")
    assert in_tensors(names, np.arange(3)) is not None
    assert names[1]["target"].item() is True
    assert names.path_of(1) == "houses.csv row 1"
    others = named(masked, BatchNames(input="input", target="target"), field="train_data")
    assert len({one.fingerprint() for one in (names, others, masked)}) == 3
    swapped = named(rows, BatchNames(input=1, target=0), field="train_data")
    assert swapped[2][1].tolist() == [52]
    assert not hasattr(swapped, "classes")
    same = named(rows, BatchNames(input=0, target=1), field="train_data")
    assert (same.classes, same.targets.tolist()) == (rows.classes, rows.targets.tolist())


@pytest.mark.parametrize(
    ("lines", "options", "told"),
    [
        ("1,2\n,3\n", {}, "row 1, column 'x': missing"),
        ("1,2\n3,\n", {}, "row 1, column 'y': the target is missing"),
        ("1,2\n3,NaN\n", {}, "row 1, column 'y': the target is missing"),
        ("1,2\ninf,3\n", {}, "row 1, column 'x': found inf"),
        ("1,2\n2,2\nx,3\n", {}, "row 2, column 'x': found 'x'"),
        ("a,2\nb,3\n", {}, "categories: {x: [first, second]}"),
        ("a,2\nc,3\n", {"categories": {"x": ["a", "b"]}}, "row 1, column 'x': found 'c'"),
        ("1,2\n", {"features": ["xx"]}, "did you mean 'x'"),
        ("1,2\n", {"categories": {"z": ["a"]}}, "'z' is none of the features"),
        ("1,2\n", {"missing": {"drop": True}}, "{fill: 0.0}"),
        ("1,2\n", {"normalize": "train"}, "no `split`"),
        ("1,2\n", {"normalize": {"mean": [1, 2], "std": 1}}, "each of the 1 features"),
        ("1,2\n", {"normalize": {"mean": 1, "std": 0}}, "above 0"),
        ("1,2\n", {"classes": ["3"]}, "row 0, column 'y': found '2'"),
        ("1,2\n", {"mask": "x"}, "no column left"),
        ("1,2\n", {"dtype": "int8"}, "float32"),
        ("1,2,3\n", {}, "cannot be read"),
        ("", {}, "no rows"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(lines, options, told, tmp_path):
    (tmp_path / "a.csv").write_text(f"x,y\n{lines}")
    assert told in refused(str(tmp_path / "a.csv"), "y", **options)


def test_a_number_far_behind_the_first_block_that_is_none_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n" + "1,2\n" * 300_000 + "oops,3\n")
    assert "row 300000, column 'x': found 'oops'" in refused(str(tmp_path / "a.csv"), "y")


def test_what_is_missing_is_filled_where_that_is_stated_and_masked_targets_may_be(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,m\n1,,0\n,2.5,1\n")
    path = str(tmp_path / "a.csv")
    assert "missing" in refused(path, "y", mask="m")
    filled = table(path, "y", mask="m", missing={"fill": -1})
    assert filled.tensors[0].flatten().tolist() == [1, -1]
    assert filled.tensors[1].tolist() == [0, 2.5]
    assert filled.tensors[2].tolist() == [False, True]


def test_parts_by_a_column_are_those_that_its_values_say(houses):
    by = {"column": "rooms", "values": [3]}
    train = table(houses, "price", ["area"], split={"part": "train", **by})
    held = table(houses, "price", ["area"], split={"part": "validation", **by})
    assert sorted([*train.tensors[0].flatten().tolist(), *held.tensors[0].flatten().tolist()]) == [
        50 + row for row in range(30)
    ]
    assert held.path_of(1) == "houses.csv row 7"
    both = {"column": "kind", "values": {"train": ["flat"], "validation": ["villa"]}}
    assert len(table(houses, "price", ["area"], split={"part": "validation", **both})) == 10
    fifth = table(houses, "kind", ["area"], split={"part": "validation"})
    assert np.bincount(fifth.targets).tolist() == [4, 2]  # of 20 flats and 10 villas
    for wrong, told in (
        ({"values": [9]}, "9 is not in the column"),
        ({"values": []}, "together"),
        ({"values": [3], "seed": 1}, "instead of"),
    ):
        split = {"part": "train", "column": "rooms", **wrong}
        assert told in refused(houses, "price", ["area"], split=split)


def test_features_are_scaled_by_the_training_part_in_both_parts(houses):
    parts = [
        table(houses, "sold", ["area", "price"], split={"part": part}, normalize="train").tensors[0]
        for part in ("train", "validation")
    ]
    assert torch.allclose(parts[0].mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(parts[0].std(0, correction=0), torch.ones(2), atol=1e-6)
    plain = [
        table(houses, "sold", ["area", "price"], split={"part": part}).tensors[0]
        for part in ("train", "validation")
    ]
    mean, std = plain[0].double().mean(0), plain[0].double().std(0, correction=0)
    assert torch.allclose(parts[1].double(), (plain[1].double() - mean) / std, atol=1e-6)


def test_features_are_scaled_by_those_of_another_table(tmp_path):
    (tmp_path / "train.csv").write_text("x,c,y\n1,5,1\n3,5,2\n")
    (tmp_path / "test.csv").write_text("c,x,y\n5,5,1\n")
    found = table(str(tmp_path / "test.csv"), "y", normalize={"path": str(tmp_path / "train.csv")})
    assert found.tensors[0].tolist() == [[0, 3]]
    message = refused(str(tmp_path / "test.csv"), "y", normalize={"path": str(tmp_path / "no.csv")})
    assert "no.csv" in message


def test_ids_of_a_column_are_those_of_the_samples(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,id,name\n1,2,70,a\n2,3,80,b\n")
    path = str(tmp_path / "a.csv")
    assert table(path, "y", ["x"], ids="id").sample_ids.tolist() == [70, 80]
    assert table(path, "y", ["x"], ids="name").sample_ids == ["a", "b"]


def test_the_fingerprint_is_of_the_content_alone(houses, tmp_path):
    (tmp_path / "other.csv").write_text(HOUSES)
    one, same = (
        table(houses, "sold", ["area"]),
        table(str(tmp_path / "other.csv"), "sold", ["area"]),
    )
    assert one.fingerprint() == same.fingerprint()
    (tmp_path / "other.csv").write_text(HOUSES.replace("\n60,", "\n61,"))
    assert table(str(tmp_path / "other.csv"), "sold", ["area"]).fingerprint() != same.fingerprint()


def test_the_function_is_not_hidden_by_its_module():
    import epochal.data.datasets.table as as_module

    assert datasets.table is table
    assert as_module is table


@given(
    st.lists(st.sampled_from("abcd"), min_size=2, max_size=60),
    st.floats(0.05, 0.95),
    st.integers(0, 2**40),
)
def test_the_parts_of_a_split_are_disjoint_and_together_everything(column, fraction, seed):
    values = np.array(column, dtype=object)
    labels = np.unique(values, return_inverse=True)[1]
    for given_split in (
        {"fraction": fraction, "seed": seed},
        {"column": "c", "values": [column[0]]},
    ):
        parts = []
        for part in ("train", "validation"):
            split = read_split({"part": part, **given_split}, name="t")
            try:
                rows = split_rows(
                    split, len(values), labels_N=labels, name="t", column=lambda _: values
                )
            except DataError:
                rows = np.empty(0, dtype=np.int64)
            parts.append(set(rows.tolist()))
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(range(len(values)))


def test_a_table_of_an_address_is_read_there(houses):
    from fsspec.implementations.memory import MemoryFileSystem

    memory = MemoryFileSystem()
    memory.pipe("/table-test/part.csv.gz", gzip.compress(HOUSES.encode()))
    try:
        found = table("memory://table-test", "sold", ["area"])
        assert found.path_of(2) == "part.csv.gz row 2"
        assert found.fingerprint() == table(houses, "sold", ["area"]).fingerprint()
    finally:
        memory.rm("/table-test", recursive=True)
