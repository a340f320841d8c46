"""The data map and the kept fraction as pictures: functions of arrays alone."""

import io

import numpy as np
import pytest
from PIL import Image

from epochal.data.samples.scores import DataMap
from epochal.data.tables.writing import SAMPLES, write_table
from epochal.tasks.report import tables as run_tables
from epochal.tasks.report.figures import DARK, MAX_POINTS, data_map_png, kept_png
from epochal.tasks.report.tables import KeptShares, RunTables, spread


def some_map(count, seed=0):
    random = np.random.default_rng(seed)
    return DataMap(
        variability_M=random.uniform(0, 0.5, count),
        mean_p_true_M=random.uniform(0, 1, count),
        state_M=random.integers(0, 4, count),
        lot_M=random.permutation(count).astype(np.uint64),
        left_out=3,
    )


def shuffled(found):
    order = np.random.default_rng(5).permutation(len(found))
    columns = (found.variability_M, found.mean_p_true_M, found.state_M, found.lot_M)
    return DataMap(*(one[order] for one in columns), left_out=found.left_out)


def size(data):
    return Image.open(io.BytesIO(data)).size


@pytest.mark.parametrize("count", [1, 40, MAX_POINTS + 500])
def test_a_data_map_is_the_same_whatever_the_order_of_the_rows(count):
    found = some_map(count)
    drawn = data_map_png(found)
    assert drawn == data_map_png(shuffled(found))
    assert drawn != data_map_png(found, theme=DARK)
    assert b"Software" not in drawn


def test_of_many_samples_those_of_the_smallest_hash_are_drawn_and_all_are_counted():
    found = some_map(MAX_POINTS + 10)
    beyond = found.lot_M >= MAX_POINTS
    elsewhere = np.where(beyond, 0.25, found.mean_p_true_M)
    assert data_map_png(found) != data_map_png(
        DataMap(found.variability_M, elsewhere, found.state_M, found.lot_M, found.left_out)
    )  # their margins differ


def shares(classes, epochs, labels=None, missing=False):
    share = np.random.default_rng(1).uniform(0.2, 1, (epochs, classes))
    if missing:
        share[0, : classes // 2] = np.nan
    numbers = list(range(1, epochs + 1))
    means = np.nan_to_num(share).mean(axis=1).tolist()
    return KeptShares(numbers, means, numbers, labels or list(range(classes)), share)


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 21, 60, 700])
@pytest.mark.parametrize("epochs", [1, 4])
def test_kept_shares_are_drawn_for_few_classes_and_many(classes, epochs):
    found = shares(classes, epochs, missing=epochs > 1)
    drawn = kept_png(found)
    assert drawn == kept_png(found)
    assert min(size(drawn)) > 500


def test_samples_of_no_known_class_are_in_the_line_of_all_alone():
    unknown = shares(1, 3, labels=[-1])
    one = KeptShares(
        unknown.epochs_E, unknown.share_E, unknown.class_epochs_K, [7], unknown.share_KC
    )
    assert kept_png(unknown) == kept_png(one)


class Files:
    """Stands for a stage store: tables in files."""

    def __init__(self, folder):
        self.folder = folder
        self.read = []

    def fetch_artifact(self, record, name):
        from contextlib import nullcontext

        self.read.append(record.epoch)
        return nullcontext(self.folder / f"{record.epoch}")


class Record:
    def __init__(self, epoch, count, kept):
        self.epoch, self.values = epoch, {"samples": count, "kept_fraction": kept}


def mined(folder, plans):
    ids = np.arange(4)
    for epoch, (labels, keep) in enumerate(plans):
        columns = {
            one.name: np.zeros(4, dtype=one.dtype) for one in SAMPLES.columns if one.required
        }
        columns |= {"sample_id": ids, "label": np.array(labels), "keep": np.array(keep, bool)}
        write_table(columns, folder / f"{epoch}", schema=SAMPLES, metadata={})
    records = {epoch: Record(epoch, 4, np.mean(keep)) for epoch, (_, keep) in enumerate(plans)}
    files = Files(folder)
    return files, RunTables(files, {}, records, sampling=None)


def test_kept_shares_are_counted_by_class_of_the_epoch_that_trains_by_them(tmp_path):
    plans = [([0, 0, 1, -1], [1, 1, 1, 1]), ([0, 0, 1, 2], [1, 0, 0, 1])]
    _, tables = mined(tmp_path, plans)
    found = tables.kept()
    assert (list(found.epochs_E), found.share_E) == ([1, 2], [1.0, 0.5])
    assert found.labels_C == [-1, 0, 1, 2]
    expected = [[1, 1, 1, np.nan], [np.nan, 0.5, 0, 1]]
    assert np.array_equal(found.share_KC, expected, equal_nan=True)


def test_of_many_large_tables_some_are_read_and_the_line_of_all_has_every_epoch(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_tables, "MAX_PICTURE_ROWS", 12)
    files, tables = mined(tmp_path, [([0, 0, 1, 1], [1, 0, 1, 1])] * 9)
    found = tables.kept()
    assert files.read == [0, 4, 8]
    assert found.class_epochs_K == [1, 5, 9]
    assert len(found.share_E) == 9
    assert kept_png(found)


def test_labels_that_are_no_classes_are_not_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tables, "MAX_CLASSES", 3)
    _, tables = mined(tmp_path, [([0, 1, 2, 3 + 10**12], [1, 0, 1, 1])] * 2)
    found = tables.kept()
    assert (found.labels_C, found.class_epochs_K, found.share_E) == ([], [], [0.75, 0.75])
    assert kept_png(found)


def test_spread_keeps_the_first_and_the_last():
    assert spread([3, 4, 5], most=5) == [3, 4, 5]
    assert spread(list(range(100)), most=3) == [0, 50, 99]
    assert RunTables(None, {}, {}, sampling=None).kept() is None
