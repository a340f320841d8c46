"""What a commit inside an epoch has recorded, read without its state."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from epochal.data.errors import CorruptObject
from epochal.tasks.checkpoints.mid_epoch_codec import read_recorded

GOOD = {
    "model/weight": np.ones(3, np.float32),
    "metric/train/loss": np.array([2.0, 1.0]),
    "observed/sample_id": np.array([7, 3, 9, 1]),
    "observed/loss": np.ones(4, np.float32),
    "update_ends": np.array([2, 3]),
}


def recorded(folder, **changes):
    named = {name.replace("__", "/"): value for name, value in changes.items()}
    held = {name: value for name, value in {**GOOD, **named}.items() if value is not None}
    save_file(held, folder / "commit.safetensors")
    return read_recorded(folder / "commit.safetensors")


def test_metrics_observations_and_ends_of_updates_are_read_and_no_state(tmp_path):
    found = recorded(tmp_path)
    assert found.metrics["train/loss"].tolist() == [2.0, 1.0]
    assert found.observations.keys() == {"sample_id", "loss"}
    assert found.ends_U.tolist() == [2, 3]


@pytest.mark.parametrize(
    "changes",
    [
        {"update_ends": None},
        {"update_ends": np.array([3, 2])},
        {"update_ends": np.array([2.0, 3.0])},
        {"update_ends": np.array([2, 5])},
        {"update_ends": np.array([-1, 3])},
        {"metric__train/loss": np.ones(3)},
        {"metric__train/loss": np.ones(2, np.float32)},
        {"observed__sample_id": None},
        {"observed__loss": np.ones(3, np.float32)},
        {"observed__loss": np.ones(4)},
        {"observed__nothing_like_it": np.ones(4, np.float32)},
    ],
)
def test_columns_that_no_epoch_has_written_are_refused(changes, tmp_path):
    with pytest.raises(CorruptObject, match="a commit inside an epoch"):
        recorded(tmp_path, **changes)


def test_a_file_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"no tensors at all")
    with pytest.raises(CorruptObject, match="a commit inside an epoch cannot be read"):
        read_recorded(tmp_path / "x")
