"""Buffers of the host: copies of a state, bit for bit, in memory that is kept."""

import pytest
import torch

from epochal.tasks.checkpoints import host_buffers
from epochal.tasks.checkpoints.host_buffers import HostBuffers


def test_buffers_are_kept_from_commit_to_commit_and_are_no_more_than_one_state(tmp_path):
    buffers, places = HostBuffers(), []
    tensors = {"a": torch.ones(3, 4), "b": torch.zeros(()), "c": torch.ones(2, 6).t()}
    buffers.prepare(tensors)
    for value in (1.0, 2.0):
        for one in tensors.values():
            one.fill_(value)
        found = buffers.copy(tensors)
        assert all(torch.equal(found[name], one) for name, one in tensors.items())
        places.append([one.data_ptr() for one in found.values()])
    assert places[0] == places[1]
    assert not {one.data_ptr() for one in tensors.values()} & set(places[0])
    assert sum(one.nbytes for one in buffers._kept.values()) == sum(
        one.nbytes for one in tensors.values()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e5m2])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 2)])
def test_tensors_of_any_kind_are_copied_bit_for_bit(dtype, shape):
    count = torch.Size(shape).numel() * dtype.itemsize
    tensor = (torch.arange(count) % 2).to(torch.uint8).view(dtype).reshape(shape)
    found = HostBuffers().copy({"x": tensor, "part": tensor.detach()})["x"]
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    assert found.view(-1).view(torch.uint8).tolist() == tensor.view(-1).view(torch.uint8).tolist()


def test_what_is_copied_in_shares_is_copied_whole():
    numbers = torch.Generator().manual_seed(3)
    sizes = {"a": host_buffers.SHARE_BYTES - 1, "b": 2 * host_buffers.SHARE_BYTES + 5, "c": 1}
    tensors = {
        name: torch.randint(256, (size,), generator=numbers, dtype=torch.uint8)
        for name, size in sizes.items()
    }
    tensors |= {f"small {number}": torch.tensor(number) for number in range(100)}
    found = HostBuffers().copy(tensors)
    assert all(torch.equal(found[name], one) for name, one in tensors.items())


def test_a_tensor_of_another_shape_gets_another_buffer():
    buffers = HostBuffers()
    buffers.copy({"x": torch.ones(3)})
    found = buffers.copy({"x": torch.zeros(4)})["x"]
    assert found.tolist() == [0, 0, 0, 0]
