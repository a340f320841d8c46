"""Slices of a stored state: only a process's rows are read, and another shape is an error."""

import pytest
import torch
from safetensors.torch import save_file

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.engine.checkpoint.slices import as_wholes, load_slices, slices_among
from epochal.engine.model.state import Slice

SLICES = {"a.weight": Slice((5, 3), 2, 2), "b": Slice((2,), 2, 0)}
WHOLE = torch.arange(15.0).view(5, 3)


@pytest.fixture
def path(tmp_path):
    tensors = {
        "model/a.weight": WHOLE,
        "model/b": torch.ones(2),
        "model/buffer": torch.ones(5, 3),
        "optimizer/state/a.weight/exp_avg": WHOLE * 2,
        "optimizer/state/a.weight/step": torch.tensor(7.0),
        "observed/a.weight": torch.ones(4),
    }
    save_file(tensors, tmp_path / "f")
    return tmp_path / "f"


PREFIXES = ("model/", "optimizer/")


def test_the_rows_of_parameters_and_their_slots_are_read(path):
    found = load_slices(path, SLICES, prefixes=PREFIXES)
    assert torch.equal(found["model/a.weight"], WHOLE[2:4])
    assert torch.equal(found["optimizer/state/a.weight/exp_avg"], 2 * WHOLE[2:4])
    assert found["model/b"].shape == (0,)
    assert found["optimizer/state/a.weight/step"] == 7
    assert found["model/buffer"].shape == (5, 3)
    assert found["observed/a.weight"].shape == (4,)


def test_without_slices_all_is_read(path):
    assert torch.equal(load_slices(path, {})["model/a.weight"], WHOLE)


def test_another_shape_is_named_even_if_it_is_that_of_the_slice(tmp_path):
    save_file({"a.weight": torch.ones(2, 3)}, tmp_path / "f")
    with pytest.raises(StateMismatch, match=r"stored \(2, 3\), the model wants \(5, 3\)"):
        load_slices(tmp_path / "f", SLICES)


def test_what_is_no_such_file_is_corrupt(tmp_path):
    (tmp_path / "f").write_bytes(b"nothing")
    with pytest.raises(CorruptObject, match="no safetensors file"):
        load_slices(tmp_path / "f", SLICES)


def test_slices_are_known_by_their_names_and_shapes():
    tensors = {
        "model/a.weight": torch.ones(2, 3),
        "optimizer/state/a.weight/exp_avg": torch.ones(2, 3),
        "optimizer/state/a.weight/step": torch.ones(()),
        "metric/a.weight": torch.ones(2, 3),
    }
    found = slices_among(tensors, SLICES, prefixes=PREFIXES)
    assert list(found) == ["model/a.weight", "optimizer/state/a.weight/exp_avg"]
    wholes = as_wholes(tensors, found)
    assert [tuple(one.shape) for one in wholes.values()] == [(5, 3), (5, 3), (), (2, 3)]
