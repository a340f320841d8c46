"""Hugging Face's sets: items as tensors and texts, and a fingerprint of the content alone."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from epochal.data.datasets import hugging_face as hugging_face_function
from epochal.data.datasets.hugging_face import HuggingFaceRows, adapted, hugging_face
from epochal.data.datasets.packed import packed
from epochal.data.errors import DataError
from epochal.data.inspection.describe import describe

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True, scope="module")
def quiet(tmp_path_factory):
    datasets.disable_progress_bars()
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before
    datasets.enable_progress_bars()


ROWS = {
    "input_ids": [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]],
    "note": ["a", None, "ü", ""],
    "score": [0.5, None, 1.5, 2.0],
    "vector": [[0.1, 0.2], [0.3, 0.4], None, [0.5, 0.6]],
    "grid": [[[1, 2], [3, 4]]] * 4,
    "struct": [{"x": 1, "y": [True]}, {"x": None, "y": []}, None, {"x": 4, "y": None}],
    "label": [0, 1, 1, 0],
}


@pytest.fixture(scope="module")
def rows():
    label = datasets.ClassLabel(names=["no", "yes"])
    return datasets.Dataset.from_dict(ROWS).cast_column("label", label)


def test_items_are_dicts_of_tensors_numbers_texts_and_none(rows):
    found = HuggingFaceRows(rows, columns=["input_ids", "note", "score", "vector", "grid", "label"])
    last, second = found.__getitems__([3, 1])
    assert last["input_ids"].equal(torch.tensor([7, 8, 9, 10]))
    assert last["vector"].equal(torch.tensor([0.5, 0.6]))
    assert (last["note"], last["score"], last["label"]) == ("", 2.0, 0)
    assert (second["note"], second["score"], second["label"]) == (None, None, 1)
    assert second["grid"].equal(torch.tensor([[1, 2], [3, 4]]))
    assert found[2]["vector"] is None
    last["input_ids"][0] = 0
    assert found[3]["input_ids"][0] == 7


def test_it_tells_labels_classes_and_lengths_without_reading(rows):
    found = HuggingFaceRows(rows.select([3, 1, 0]))
    assert found.targets.tolist() == [0, 1, 0]
    assert found.classes == ["no", "yes"]
    assert found.lengths.tolist() == [4, 1, 3]
    assert found.path_of(0) == "row 3"
    assert len(found) == 3
    named = HuggingFaceRows(rows, lengths="grid", ids="label")
    assert named.lengths.tolist() == [2, 2, 2, 2]
    assert named.sample_ids.tolist() == [0, 1, 1, 0]
    assert describe(found, name="train_data").num_samples == 3


def same_content(rows, tmp_path):
    rows.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    yield "saved in other files", saved
    yield "chained", datasets.concatenate_datasets([rows.select([0]), saved.select([1, 2, 3])])
    yield "through indices", rows.select([3, 1, 0, 2]).select([2, 1, 3, 0])
    yield "made anew", datasets.Dataset.from_dict(ROWS).cast(rows.features)
    yield "cut", datasets.concatenate_datasets([rows, rows]).select(range(4))


def test_the_fingerprint_is_that_of_the_content_however_it_is_stored(rows, tmp_path):
    expected = HuggingFaceRows(rows).fingerprint()
    for how, other in same_content(rows, tmp_path):
        assert HuggingFaceRows(other).fingerprint() == expected, how
    saved = HuggingFaceRows(datasets.load_from_disk(str(tmp_path / "saved")))
    assert (
        saved.stamp() == HuggingFaceRows(datasets.load_from_disk(str(tmp_path / "saved"))).stamp()
    )
    assert not hasattr(HuggingFaceRows(rows), "stamp")


@pytest.mark.parametrize("column", list(ROWS))
def test_the_fingerprint_changes_with_any_value(rows, column):
    changed = {**ROWS, column: [*ROWS[column][1:], ROWS[column][0]]}
    if column == "grid":
        changed = {**ROWS, column: [[[1, 2, 3, 4]], *ROWS[column][1:]]}
    other = datasets.Dataset.from_dict(changed).cast(rows.features)
    assert HuggingFaceRows(other).fingerprint() != HuggingFaceRows(rows).fingerprint()
    dropped = HuggingFaceRows(rows.remove_columns(column)).fingerprint()
    assert dropped != HuggingFaceRows(rows).fingerprint()


def test_the_librarys_own_fingerprint_is_none_of_the_content(rows, tmp_path):
    rows.save_to_disk(str(tmp_path / "saved"))
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    assert saved._fingerprint != rows._fingerprint
    drawing = [rows.map(Draws(), load_from_cache_file=False) for _ in range(2)]
    assert drawing[0]._fingerprint == drawing[1]._fingerprint
    ours = {HuggingFaceRows(one).fingerprint() for one in drawing}
    assert len(ours) == 2


class Draws:
    def __call__(self, row):
        return {"drawn": float(torch.rand(()))}

    def __reduce__(self):
        return (Draws, ())


def test_of_a_large_set_blocks_of_rows_are_hashed(rows, monkeypatch):
    module = sys.modules[HuggingFaceRows.__module__]
    monkeypatch.setattr(module, "WHOLE_BYTES", 1)
    values = np.arange(1000)
    before = HuggingFaceRows(datasets.Dataset.from_dict({"x": values})).fingerprint()
    assert before == HuggingFaceRows(datasets.Dataset.from_dict({"x": values})).fingerprint()
    values[500] = 0
    assert HuggingFaceRows(datasets.Dataset.from_dict({"x": values})).fingerprint() != before


def test_images_are_tensors_of_bytes():
    images = [Image.fromarray(np.full((4, 5, 3), value, np.uint8)) for value in range(3)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = HuggingFaceRows(
        datasets.Dataset.from_dict({"image": images, "label": [0, 1, 2]}, features=features)
    )
    assert (rows[2]["image"].dtype, rows[2]["image"].shape) == (torch.uint8, (3, 4, 5))
    assert rows[2]["image"].unique().tolist() == [2]


def test_a_format_or_transform_of_the_users_is_kept(rows):
    assert HuggingFaceRows(rows.with_format("numpy"))[0]["input_ids"].dtype == np.int64
    doubled = rows.with_transform(lambda batch: {"x": [2 * one for one in batch["label"]]})
    assert HuggingFaceRows(doubled).__getitems__([1, 0]) == [{"x": 2}, {"x": 0}]
    shown = rows.with_format("torch", columns=["label"])
    assert HuggingFaceRows(shown)[1] == {"label": torch.tensor(1)}
    assert HuggingFaceRows(rows.with_format("pandas"))[1]["label"] == 1


def test_a_set_of_a_users_own_target_is_adapted_and_a_dict_of_sets_refused(rows):
    assert type(adapted(rows, name="train_data")) is HuggingFaceRows
    assert adapted([1], name="train_data") == [1]
    with pytest.raises(DataError, match="train_data: found a DatasetDict of train, test"):
        adapted(datasets.DatasetDict(train=rows, test=rows), name="train_data")
    with pytest.raises(DataError, match="only iterates"):
        describe(adapted(rows.to_iterable_dataset(), name="train_data"), name="train_data")
    windows = packed(rows.select_columns(["input_ids"]), 5)
    assert sorted(windows.lengths.tolist()) == [5, 5]


def test_it_is_loaded_from_a_folder_with_its_splits_and_ours(rows, tmp_path):
    both = datasets.DatasetDict(train=rows, test=rows.select([0]))
    both.save_to_disk(str(tmp_path / "both"))
    path = str(tmp_path / "both")
    assert len(hugging_face(path)) == 4
    assert hugging_face(path, split="test").path_of(0) == "both/test row 0"
    parts = [
        hugging_face(path, split={"part": part, "fraction": 0.5}, columns=["score", "note"])
        for part in ("train", "validation")
    ]
    notes = [one["note"] for part in parts for one in part.__getitems__(range(len(part)))]
    assert sorted(map(str, notes)) == ["", "None", "a", "ü"]
    by = {"column": "note", "values": ["a"]}
    assert len(hugging_face(path, split={"part": "train", **by})) == 3
    for options, told in (
        ({"split": "dev"}, "has no 'dev'; it has train, test"),
        ({"columns": ["lable"]}, "did you mean 'label'"),
        ({"lengths": "note"}, "expected whole numbers, or lists"),
        ({"ids": "score"}, "whole numbers or texts"),
        ({"split": {"part": "train", "column": "x", "values": [1]}}, "no column 'x'"),
        ({"split": {"part": "dev"}}, "split.part"),
    ):
        with pytest.raises(DataError) as caught:
            hugging_face(path, **options)
        assert told in str(caught.value)
    with pytest.raises(DataError, match="cannot be loaded"):
        hugging_face(str(tmp_path / "absent"))
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("x,label\n1,0\n2,1\n")
    loaded = hugging_face(str(tmp_path / "csv"))
    assert loaded[1] == {"x": 2, "label": 1}
    assert hugging_face_function is hugging_face
