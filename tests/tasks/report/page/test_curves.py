"""Curves of epochs and of updates: where their points are on every axis, and how many."""

from types import SimpleNamespace

import numpy as np
import pytest

from epochal.data.errors import CorruptObject
from epochal.tasks.checkpoints.mid_epoch_codec import Recorded
from epochal.tasks.goodput.run import RunGoodput
from epochal.tasks.goodput.totals import Totals
from epochal.tasks.report.page.curves import (
    MAX_GROUP_POINTS,
    MAX_POINTS,
    epoch_curves,
    run_progress,
    update_curves,
)
from epochal.tasks.report.tables import RunTables
from epochal.tasks.runs.open_epoch import OpenEpoch
from epochal.tasks.runs.summary import EpochRow


def test_curves_of_epochs_have_a_point_at_the_end_of_each_epoch_that_has_the_value():
    rows = [
        EpochRow(epoch, loss, metrics, *[None] * 6)
        for epoch, loss, metrics in (
            (0, 2.0, {"accuracy": 0.5}),
            (1, None, {"accuracy": 0.75, "top5": None}),
            (2, 1.0, {}),
        )
    ]
    curves = epoch_curves(rows, {0: 10, 1: 20, 2: 35})
    points = {name: (curve.x, curve.mean) for name, curve in curves.items()}
    assert points == {
        "train/loss": ([10.0, 35.0], [2.0, 1.0]),
        "validation/accuracy": ([10.0, 20.0], [0.5, 0.75]),
    }
    assert not any(curve.has_band for curve in curves.values())


class Tables:
    """A stage store of one epoch whose table of updates is in a file."""

    def __init__(self, path):
        self.path = path

    def fetch_artifact(self, record, name):
        from contextlib import nullcontext

        assert name == "updates"
        return nullcontext(self.path)


def test_curves_of_a_million_updates_are_of_some_thousand_points_with_every_spike(tmp_path):
    from epochal.data.tables.writing import UPDATES, write_table

    updates = 100_000
    values = np.full(updates, 2.0)
    values[[777, 99_998]] = 1000.0, -1000.0
    steps = np.arange(1, updates + 1)
    keys = ("train/loss", "gradients/norm/body")
    columns = {
        "step": np.tile(steps, 2),
        "key": np.repeat(np.array(keys, dtype=object), updates),
        "value": np.tile(values, 2),
    }
    write_table(columns, tmp_path / "updates", schema=UPDATES, metadata={})
    record = SimpleNamespace(values={"updates": updates})
    tables = RunTables(Tables(tmp_path / "updates"), {0: record}, {}, sampling=None)
    loss, group = update_curves(tables).values()
    assert (len(loss.x), len(group.x)) == (MAX_POINTS, MAX_GROUP_POINTS)
    assert (max(loss.high), min(loss.low)) == (1000.0, -1000.0)
    assert (max(group.high), min(group.low)) == (1000.0, -1000.0)
    assert sum(loss.count) == updates


def progress(times, *, goodput=None, updates=(10, 10), samples=(100, 40), open_=None):
    """The progress of a run whose epochs have these anchors."""
    stages, records, done = [], {}, 0
    for epoch, (count, seen) in enumerate(zip(updates, samples, strict=True)):
        done += count
        stage = SimpleNamespace(kind="train", number=epoch, known_key=f"key {epoch}")
        values = {"updates": count, "updates_done": done, "samples": seen}
        stages.append(stage)
        records[epoch] = SimpleNamespace(key=stage.known_key, values=values)

    def read(key, name):
        found = times[int(key[-1])]
        if isinstance(found, Exception):
            raise found
        return None if found is None else {"anchors": found}

    run = SimpleNamespace(
        needed=stages,
        is_done=lambda _: True,
        of_kind=lambda _: [(stage, records[stage.number]) for stage in stages],
    )
    store = SimpleNamespace(map=lambda function, items: [function(item) for item in items])
    return run_progress(run, SimpleNamespace(store=store, read_side_file=read), goodput, open_)


def test_an_update_lies_in_its_epoch_behind_its_samples_and_its_seconds():
    found = progress([[[0, 1000], [5, 2000], [10, 5000]], [[0, 90_000], [10, 96_000]]])
    places = found.at([0, 5, 10, 15, 20])
    assert places["update"].tolist() == [0, 5, 10, 15, 20]
    assert places["epoch"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert places["samples"].tolist() == [0, 50, 100, 120, 140]
    # The 85 s between the two epochs are none of work.
    assert places["time"].tolist() == [0, 1, 4, 7, 10]
    assert (found.first_ms, found.last_ms) == (1000, 96_000)
    assert found.ends == {0: 10, 1: 20}


def test_an_epoch_lasts_as_long_as_all_its_stages():
    spent = RunGoodput({0: Totals({"data": 8.0}), 1: Totals({"data": 2.0})}, Totals())
    found = progress([[[0, 1000], [10, 5000]], [[0, 90_000], [10, 96_000]]], goodput=spent)
    assert found.at([10, 20])["time"].tolist() == [8, 10]


def test_where_no_times_are_kept_points_have_no_place_on_that_axis_alone():
    found = progress([None, CorruptObject("a bit has flipped")])
    assert np.isnan(found.at([5])["time"]).all()
    assert found.at([5])["samples"].tolist() == [50]


def test_an_epoch_that_is_planned_begins_where_those_before_would_end():
    places = progress([None, None]).starts([1, 2, 3])
    assert places["epoch"].tolist() == [1, 2, 3]
    assert places["update"].tolist() == [10, 20, 30]
    assert places["samples"].tolist() == [100, 140, 210]


def test_an_epoch_at_work_goes_on_where_the_one_before_has_ended():
    open_ = OpenEpoch(
        epoch=2, updates=4, num_updates=8, updates_before=20, times=[[0, 500_000], [4, 502_000]],
        recorded=Recorded({"train/loss": np.ones(4)}, {}, np.array([10, 20, 30, 40])),
    )  # fmt: skip
    found = progress([[[0, 1000], [10, 5000]], [[0, 90_000], [10, 96_000]]], open_=open_)
    places = found.at([20, 22, 24])
    assert places["epoch"].tolist() == [2, 2.25, 2.5]
    assert places["samples"].tolist() == [140, 160, 180]
    assert places["time"].tolist() == [10, 11, 12]
    assert found.last_ms == 502_000
    assert found.starts([3])["update"].tolist() == pytest.approx([24 + 0.5 * 24 / 2.5])
