"""The tables of a run, read for its pictures: shares by class, bounded reading."""

import numpy as np

from epochal.data.tables.writing import SAMPLES, write_table
from epochal.tasks.report import tables as run_tables
from epochal.tasks.report.tables import RunTables, spread


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
            column.name: np.zeros(4, dtype=column.dtype)
            for column in SAMPLES.columns
            if column.required
        }
        columns |= {"sample_id": ids, "label": np.array(labels), "keep": np.array(keep, bool)}
        write_table(columns, folder / f"{epoch}", schema=SAMPLES, metadata={})
    records = {epoch: Record(epoch, 4, np.mean(keep)) for epoch, (_, keep) in enumerate(plans)}
    files = Files(folder)
    return files, RunTables(files, {}, records, sampling=None)


def test_kept_shares_are_counted_by_class_of_the_epoch_that_trains_by_them(tmp_path):
    plans = [([0, 0, 1, -1], [1, 1, 1, 1]), ([0, 0, 1, 2], [1, 0, 0, 1])]
    _, tables = mined(tmp_path, plans)
    shares = tables.kept()
    assert (list(shares.epochs_E), shares.share_E) == ([1, 2], [1.0, 0.5])
    assert shares.class_epochs_K == [1, 2]
    assert shares.labels_C == [-1, 0, 1, 2]
    expected = [[1, 1, 1, np.nan], [np.nan, 0.5, 0, 1]]
    assert np.array_equal(shares.share_KC, expected, equal_nan=True)


def test_of_many_large_tables_some_are_read_and_the_line_of_all_has_every_epoch(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_tables, "MAX_PICTURE_ROWS", 12)
    files, tables = mined(tmp_path, [([0, 0, 1, 1], [1, 0, 1, 1])] * 9)
    shares = tables.kept()
    assert files.read == [0, 4, 8]
    assert shares.class_epochs_K == [1, 5, 9]
    assert len(shares.share_E) == 9


def test_labels_that_are_no_classes_are_not_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tables, "MAX_CLASSES", 3)
    _, tables = mined(tmp_path, [([0, 1, 2, 3 + 10**12], [1, 0, 1, 1])] * 2)
    shares = tables.kept()
    assert (shares.labels_C, shares.class_epochs_K, shares.share_E) == ([], [], [0.75, 0.75])


def test_spread_keeps_the_first_and_the_last():
    assert spread([3, 4, 5], most=5) == [3, 4, 5]
    assert spread(list(range(100)), most=3) == [0, 50, 99]
    assert RunTables(None, {}, {}, sampling=None).kept() is None
