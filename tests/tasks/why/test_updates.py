"""Which update is meant, and which one stands out: on series made by hand."""

import numpy as np
import pytest

from epochal.data.errors import InputError, NotFound
from epochal.data.stage_store.records import StageRecord
from epochal.tasks.why import updates
from epochal.tasks.why.updates import (
    TrainedEpoch,
    _medians_before,
    before,
    epoch_of,
    largest_spike,
    medians,
)

NAN = float("nan")


class Told:
    """Epochs whose tables are these columns; what a run is asked for beside them."""

    class plan:  # noqa: N801 - as a run has it
        reference = "made@1"

    class config:  # noqa: N801
        epochs = 9

    stopped_after = None

    def __init__(self, monkeypatch, *losses, norms=None):
        first, self.epochs, self.columns = 1, [], {}
        for number, values in enumerate(losses):
            last = first + len(values) - 1
            self.epochs.append(TrainedEpoch(number, first, last, record(number)))
            self.columns[number] = {
                "train/loss": np.array(values, dtype=np.float64),
                "gradients/norm": np.array(norms[number] if norms else np.ones(len(values))),
            }
            first = last + 1
        monkeypatch.setattr(updates, "read_updates", self.read)

    def read(self, run, trained, *, only=None):
        return updates.EpochUpdates(trained, self.columns[trained.epoch])


def record(number):
    return StageRecord(
        stage="train", epoch=number, key="0" * 64, inputs={}, environment={},
        environment_digest="", consumed={}, artifacts={}, values={},
    )  # fmt: skip


def test_an_update_is_found_in_its_epoch_and_what_is_missing_is_told(monkeypatch):
    run = Told(monkeypatch, [1] * 4, [1] * 3)
    assert [epoch_of(run, run.epochs, one).epoch for one in (1, 4, 5, 7)] == [0, 0, 1, 1]
    with pytest.raises(InputError, match=r"made@1 has updates 1 to 7, of epochs 0 to 1; epoch 2 "):
        epoch_of(run, run.epochs, 8)


def test_the_median_is_of_up_to_64_finite_values_before_and_of_16_at_least():
    values = np.arange(100.0)
    values[[3, 70]] = NAN, np.inf
    found = _medians_before(values)
    finite = np.isfinite(values)
    assert np.isnan(found[:17]).all()
    for row in (17, 40, 69, 71, 99):
        earlier = values[:row][finite[:row]][-64:]
        assert found[row] == np.median(earlier), row
    assert np.isnan(found[70])


def test_the_largest_spike_is_of_loss_or_norm_whatever_is_more_times_what_came_before(monkeypatch):
    norms = [[2.0] * 20, [2.0] * 20]
    run = Told(monkeypatch, [1.0] * 20, [*[1.0] * 9, 7.0, *[1.0] * 10], norms=norms)
    spike, bad = largest_spike(run, run.epochs)
    assert (spike.update, spike.of, spike.ratio, spike.is_spike, bad) == (
        30, "train/loss", 7.0, True, 0,
    )  # fmt: skip
    norms[1][4] = 20.0
    run = Told(monkeypatch, [1.0] * 20, [*[1.0] * 9, 7.0, *[1.0] * 10], norms=norms)
    spike, _ = largest_spike(run, run.epochs)
    assert (spike.update, spike.of, spike.ratio) == (25, "gradients/norm", 10.0)


def test_the_spike_of_an_epoch_is_held_against_the_epochs_before_it(monkeypatch):
    losses = ([1.0] * 10, [2.0] * 10, [*[1.0] * 4, 3.0], [9.0] * 5)
    run = Told(monkeypatch, *losses)
    spike, _ = largest_spike(run, run.epochs, epoch=2)
    assert (spike.update, spike.median) == (25, np.median([1.0] * 10 + [2.0] * 10 + [1.0] * 4))
    with pytest.raises(NotFound, match="give --update N, one of 1 to 10"):
        largest_spike(run, run.epochs, epoch=0)


def test_what_is_not_finite_is_counted_and_no_spike(monkeypatch):
    run = Told(monkeypatch, [*[1.0] * 20, np.inf, NAN, *[2.0] * 3])
    spike, bad = largest_spike(run, run.epochs)
    assert (spike.update, bad) == (23, 2)


def test_what_came_before_reaches_into_earlier_epochs(monkeypatch):
    run = Told(monkeypatch, np.arange(50.0), np.arange(50.0, 80.0), np.arange(80.0, 90.0))
    here = run.read(run, run.epochs[2])
    found = before(run, run.epochs, here, 84)
    assert found["train/loss"].tolist() == np.arange(83.0 - 64, 83.0).tolist()
    assert medians(found) == {"train/loss": 50.5, "gradients/norm": 1.0}
    assert before(run, run.epochs, run.read(run, run.epochs[0]), 1)["train/loss"].tolist() == []
