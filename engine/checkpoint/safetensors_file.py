"""Tensors as the bytes of a safetensors file, piece by piece, without a second copy of them.

The bytes are those that the `safetensors` package writes; the pieces lie in the tensors' own
memory, so a file can be written and hashed in one pass.
(https://huggingface.co/docs/safetensors: 8 bytes of length, JSON, then the tensors' bytes)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epochal.data.errors import StateMismatch

_ALIGNMENT = 8  # of the data, by spaces behind the header

_DTYPES: dict[torch.dtype, str] = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format has, in the order of the file: wide numbers first, so that all are aligned."""
_RANK = {dtype: rank for rank, dtype in enumerate(_DTYPES)}


def safetensors_pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file's header, then the bytes of each tensor; equal tensors give equal bytes.

    Tensors that share memory are written once each. Those on a device are brought to the host one
    by one. Raises StateMismatch for what the format does not have.
    """
    ordered = _ordered(tensors)
    yield _header(ordered)
    for _, tensor in ordered:
        if tensor.numel():
            yield raw_bytes(tensor)


def copy_safetensors(tensors: Mapping[str, Tensor], area: Tensor) -> None:
    """Makes the same file in memory: `area`, uint8 of shape (`safetensors_size`,), 8 bytes aligned.

    Each tensor is copied once, by all threads of torch, from a device straight to its place.
    """
    ordered = _ordered(tensors)
    header = _header(ordered)
    area[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
    end = len(header)
    for _, tensor in ordered:
        if tensor.numel():
            begin, end = end, end + tensor.nbytes
            area[begin:end].view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())


def safetensors_size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file that `safetensors_pieces` gives. Raises StateMismatch as that does."""
    ordered = _ordered(tensors)
    return len(_header(ordered)) + sum(tensor.nbytes for _, tensor in ordered)


def safetensors_layout(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int], int]:
    """The file's header, where each tensor's bytes begin in the file, and the file's size.

    Looks at no number: tensors may be on the device `meta`. Raises StateMismatch as
    `safetensors_pieces`.
    """
    ordered = _ordered(tensors)
    header = _header(ordered)
    begins, end = {}, len(header)
    for name, tensor in ordered:
        begins[name] = end
        end += tensor.nbytes
    return header, begins, end


def _ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    assert sys.byteorder == "little", "the format is little-endian"
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.dtype not in _RANK:
            raise StateMismatch(
                f"{name} is a {tensor.layout} tensor of {tensor.dtype}, which a safetensors file "
                f"cannot hold; expected a dense one of {', '.join(map(str, _DTYPES))}"
            )
    return sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype], item[0]))


def _header(ordered: list[tuple[str, Tensor]]) -> bytes:
    entries, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def raw_bytes(tensor: Tensor) -> memoryview:
    """A tensor's bytes as the format has them, in its own memory where that is the host's."""
    on_host = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    flat = on_host.reshape(-1).as_strided((on_host.numel(),), (1,))  # of one number it may be 0
    return flat.view(torch.uint8).numpy().data
