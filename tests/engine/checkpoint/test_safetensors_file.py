"""Files of tensors: the bytes are those of the safetensors package, and headers are checked."""

import json

import pytest
import torch
from safetensors.torch import save

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.engine.checkpoint.safetensors_file import check_header, safetensors_pieces


@pytest.mark.parametrize("name", ["a" * count for count in range(1, 10)])
def test_the_bytes_are_those_of_the_package_whatever_the_length_of_the_header(name):
    tensors = {
        name: torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False, True]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "none": torch.zeros(0),
        "turned": torch.arange(6.0).reshape(2, 3).t().contiguous().double(),
    }
    assert b"".join(bytes(piece) for piece in safetensors_pieces(tensors)) == save(tensors)


def test_what_the_format_does_not_have_is_named():
    with pytest.raises(StateMismatch, match=r"x is a torch.sparse_coo tensor of torch.float32"):
        list(safetensors_pieces({"x": torch.eye(2).to_sparse()}))


def file_of(path, entry, *, data=b"1234"):
    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}})
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode() + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"data_offsets": [0, 5]},
        {"data_offsets": [4, 0]},
        {"data_offsets": [0]},
        {"data_offsets": [-1, 4]},
        {"shape": [1.0]},
        {"shape": [1] * 65},
        {"dtype": 7},
        {"more": 1},
    ],
)
def test_an_entry_that_no_tensor_has_is_damage(tmp_path, entry):
    check_header(file_of(tmp_path / "x", {}))
    with pytest.raises(CorruptObject, match="tensor 'x': "):
        check_header(file_of(tmp_path / "x", entry))


@pytest.mark.parametrize("count", [0, 7, 8, 30])
def test_a_file_that_is_cut_within_its_header_is_damage(tmp_path, count):
    path = file_of(tmp_path / "x", {})
    path.write_bytes(path.read_bytes()[:count])
    with pytest.raises(CorruptObject, match="is no safetensors file: its header"):
        check_header(path)
