"""Files of tensors: the bytes are those of the safetensors package."""

import pytest
import torch
from safetensors.torch import save

from epochal.data.errors import StateMismatch
from epochal.engine.checkpoint.safetensors_file import (
    _DTYPES,
    copy_safetensors,
    safetensors_pieces,
    safetensors_size,
)


def copied(tensors):
    area = torch.full((safetensors_size(tensors),), 255, dtype=torch.uint8)
    copy_safetensors(tensors, area)
    return area.numpy().tobytes()


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
    assert copied(tensors) == save(tensors)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
def test_a_copy_has_the_same_bits_whatever_they_mean(dtype):
    raw = torch.arange(256, dtype=torch.uint8).repeat(8)
    tensor = (raw % 2 if dtype == torch.bool else raw).view(dtype)
    tensors = {"plain": tensor, "turned": tensor.reshape(2, -1).t(), "one": tensor[0]}
    assert copied(tensors) == b"".join(bytes(piece) for piece in safetensors_pieces(tensors))


def test_views_of_complex_numbers_are_copied_as_they_read():
    number = torch.tensor([1 + 2j, 3 - 4j])
    tensors = {"conjugate": number.conj(), "negative": number.conj().imag}
    assert copied(tensors) == save({name: one.clone() for name, one in tensors.items()})


def test_what_the_format_does_not_have_is_named():
    with pytest.raises(StateMismatch, match=r"x is a torch.sparse_coo tensor of torch.float32"):
        list(safetensors_pieces({"x": torch.eye(2).to_sparse()}))
