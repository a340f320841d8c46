"""A state that several processes hold in slices, into the buffer that they share: each its own.

What lies there then are the bytes that one process would have put there. No process needs more of
it than its slices, nor maps the others'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.tasks.computing.buffer import Buffer, Packed, places_of

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from epochal.engine.model.state import Slice
    from epochal.engine.shards.group import Group


def pack_slices(
    buffer: Buffer,
    group: Group,
    files: Mapping[str, Mapping[str, Tensor]],
    slices: Mapping[str, Mapping[str, Slice]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> Packed | None:
    """As `pack`, called by all processes of a group; gives the first what lies in the buffer.

    slices: file → tensor → which rows it is. Of whole tensors and arrays the first process's are
    kept. Nobody else may use the buffer meanwhile. Raises as `pack`.
    """
    from epochal.engine.checkpoint.safetensors_file import raw_bytes

    packed: Packed | None = None
    begins: dict[str, dict[str, int]] | None = None
    if group.first:
        packed, begins = _pack_whole(buffer, files, slices, arrays)
    begins = group.exchange.told_document(begins)
    assert begins is not None
    for name, of_tensor in slices.items():
        for tensor_name, slice_ in of_tensor.items():
            tensor = files[name][tensor_name]
            before = slice_.first * slice_.row_numbers * tensor.element_size()
            if tensor.numel():
                buffer.write(begins[name][tensor_name] + before, raw_bytes(tensor))
    group.exchange.gather(None)  # all have written
    return packed


def _pack_whole(
    buffer: Buffer,
    files: Mapping[str, Mapping[str, Tensor]],
    slices: Mapping[str, Mapping[str, Slice]],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> tuple[Packed, dict[str, dict[str, int]]]:
    """Packs what is no slice; gives where all lies, and each tensor of each file."""
    import numpy as np

    from epochal.engine.checkpoint.safetensors_file import raw_bytes, safetensors_layout
    from epochal.engine.checkpoint.slices import as_wholes

    layouts = {
        name: safetensors_layout(as_wholes(tensors, slices[name]))
        for name, tensors in files.items()
    }
    packed = places_of({name: size for name, (_, _, size) in layouts.items()}, arrays)
    buffer.allocate(packed.size)
    begins: dict[str, dict[str, int]] = {}
    for name, (header, offsets, _) in layouts.items():
        start = packed.files[name][0]
        buffer.write(start, memoryview(header))
        begins[name] = {tensor: start + offset for tensor, offset in offsets.items()}
        for tensor_name in files[name].keys() - slices[name].keys():
            tensor = files[name][tensor_name]
            if tensor.numel():
                buffer.write(begins[name][tensor_name], raw_bytes(tensor))
    for name, array in arrays.items():
        if array.nbytes:
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            buffer.write(packed.arrays[name][0], flat.data)
    return packed, begins
