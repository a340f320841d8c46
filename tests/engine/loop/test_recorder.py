"""The step metrics of an epoch: each number of an update in its column, however they are read."""

import numpy as np
import pytest
import torch

from epochal.engine.loop import recorder as module
from epochal.engine.loop.gradients import Update
from epochal.engine.loop.recorder import UpdateRecorder

UPDATES = 7


def recorded(*, losses=range(UPDATES)):
    """Seven updates of three tensors, of which the first and the last are one group."""
    recorder = UpdateRecorder(("a", "b"), (0, 1, 0), extras=("scale",), rates=("head",))
    for number, loss in enumerate(losses):
        recorder.add_loss(torch.tensor(loss / 4))
        recorder.add_loss(torch.tensor(loss * 3 / 4))
        norms = torch.tensor([3.0, 2.0, 4.0]) * (number + 1)
        recorder.end_update(
            Update(10.0 + number, 1.0, norms, (0.5,)), rate=0.1 * number, further=[0.2 * number]
        )
    return recorder


@pytest.mark.parametrize("every", [1, 3, 256])
def test_each_number_is_in_its_column_however_many_updates_are_read_at_once(monkeypatch, every):
    monkeypatch.setattr(module, "READ_EVERY", every)
    columns = recorded().columns()
    number = np.arange(UPDATES, dtype=np.float64)
    expected = {
        "train/loss": number,
        "train/learning_rate": 0.1 * number,
        "train/learning_rate/head": 0.2 * number,
        "gradients/norm": 10 + number,
        "gradients/norm_clipped": np.ones(UPDATES),
        "scale": np.full(UPDATES, 0.5),
        "gradients/norm/a": 5 * (number + 1),
        "gradients/norm/b": 2 * (number + 1),
    }
    assert list(columns) == list(expected)
    for name, column in expected.items():
        np.testing.assert_allclose(columns[name], column, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("every", [1, 2, 256])
def test_the_first_bad_update_is_counted_from_the_start_of_the_epoch(monkeypatch, every):
    monkeypatch.setattr(module, "READ_EVERY", every)
    recorder = recorded(losses=[0.0, 1.0, 2.0, 3.0, np.nan, np.inf, 6.0])
    recorder.read()
    assert recorder.first_non_finite == 4
