"""Files of tensors: the bytes are those of the safetensors package."""

import pytest
import torch
from safetensors.torch import save

from epochal.data.errors import StateMismatch
from epochal.engine.checkpoint.safetensors_file import safetensors_pieces


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
