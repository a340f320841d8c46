"""The buffer: images of files and arrays, bit for bit, in memory that both sides see."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from epochal.data.errors import TrainingFailed
from epochal.tasks.computing.buffer import Buffer, Packed, pack, packed_size


def test_the_other_side_sees_the_file_that_safetensors_writes_and_the_arrays(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.zeros(()), "c": torch.ones(2, 6).t()}
    arrays = {"x/loss": np.arange(5.0), "empty": np.empty((0, 2), np.int64), "id": np.arange(7)}
    ours = Buffer()
    packed = pack(ours, {"model": tensors, "ema": {"e": torch.ones(9)}}, arrays)
    theirs = Buffer(ours.descriptor)  # as the child has it
    told = Packed(**packed.document)
    (tmp_path / "f").write_bytes(theirs.file(told, "model"))
    loaded = load_file(tmp_path / "f")
    assert all(torch.equal(loaded[name], one) for name, one in tensors.items())
    contiguous = {name: one.contiguous() for name, one in tensors.items()}
    assert bytes(theirs.file(told, "model")) == save(contiguous)
    for name, array in arrays.items():
        found = theirs.array(told, name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool, torch.float8_e5m2])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 2)])
def test_tensors_of_any_kind_are_copied_bit_for_bit(dtype, shape, tmp_path):
    count = torch.Size(shape).numel() * dtype.itemsize
    tensor = (torch.arange(count) % 2).to(torch.uint8).view(dtype).reshape(shape)
    buffer = Buffer()
    packed = pack(buffer, {"one": {"x": tensor, "part": tensor.detach()}}, {})
    (tmp_path / "f").write_bytes(buffer.file(packed, "one"))
    found = load_file(tmp_path / "f")["x"]
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    assert found.view(-1).view(torch.uint8).tolist() == tensor.view(-1).view(torch.uint8).tolist()


def test_memory_is_kept_from_commit_to_commit_and_grows_where_it_must():
    buffer, small = Buffer(), {"f": {"x": torch.ones(100)}}
    pack(buffer, small, {})
    first = buffer.bytes_of(8).ctypes.data
    pack(buffer, small, {})
    assert buffer.bytes_of(8).ctypes.data == first
    large = {"f": {"x": torch.full((1 << 16,), 3.0)}}
    packed = pack(buffer, large, {})
    assert packed.size == packed_size(large)
    view = buffer.file(packed, "f")
    assert np.frombuffer(view[-4:], np.float32)[0] == 3.0


def test_what_was_read_of_an_array_stays_when_the_buffer_is_used_again():
    buffer = Buffer()
    packed = pack(buffer, {}, {"x": np.ones(4)})
    kept = buffer.array(packed, "x")
    pack(buffer, {}, {"x": np.zeros(4)})
    assert kept.tolist() == [1.0] * 4


@pytest.mark.parametrize("grown_before", [False, True])
def test_a_file_that_lies_under_the_buffers_number_since_is_left_as_it_is(grown_before, tmp_path):
    buffer, size = Buffer(), 1 << 16
    if grown_before:  # by the other side
        Buffer(os.dup(buffer.descriptor)).allocate(2 * size)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"x" * size)
    with theirs.open("r+b") as file:
        os.dup2(file.fileno(), buffer.descriptor)
        with pytest.raises(TrainingFailed, match="closed descriptors that are not its own"):
            pack(buffer, {"f": {"x": torch.ones(size)}}, {})
        with pytest.raises(TrainingFailed, match="closed descriptors that are not its own"):
            buffer.bytes_of(size)
    assert theirs.read_bytes() == b"x" * size


def test_no_memory_is_asked_for_once_the_buffer_is_closed():
    buffer = Buffer()
    buffer.close()
    with pytest.raises(TrainingFailed):
        buffer.allocate(1)
