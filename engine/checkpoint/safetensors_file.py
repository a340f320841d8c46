"""The safetensors format: tensors as a file's bytes, piece by piece, and a check of its header.

The bytes are those that the `safetensors` package writes; the pieces lie in the tensors' own
memory, so a file can be written and hashed in one pass without a second copy of them. The header
is checked before the package reads a file: it takes the last of two tensors of one name, and
dimensions that torch cannot hold.
(https://huggingface.co/docs/safetensors: 8 bytes of length, JSON, then the tensors' bytes)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from epochal.data.documents import parse_json
from epochal.data.errors import CorruptObject, StateMismatch

MAX_HEADER_BYTES = 1 << 25  # some 250,000 tensors
MAX_DIMENSIONS = 64  # torch takes no more
_LENGTH_BYTES = 8  # of the header's length, in front of it
_ALIGNMENT = 8  # of the data, by spaces behind the header
_LARGEST = (1 << 63) - 1
_FIELDS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"

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
    assert sys.byteorder == "little", "the format is little-endian"
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.dtype not in _RANK:
            raise StateMismatch(
                f"{name} is a {tensor.layout} tensor of {tensor.dtype}, which a safetensors file "
                f"cannot hold; expected a dense one of {', '.join(map(str, _DTYPES))}"
            )
    ordered = sorted(tensors.items(), key=lambda item: (_RANK[item[1].dtype], item[0]))
    yield _header(ordered)
    for _, tensor in ordered:
        if tensor.numel():
            yield _raw(tensor)


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
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _raw(tensor: Tensor) -> memoryview:
    on_host = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return on_host.reshape(-1).view(torch.uint8).numpy().data


def check_header(path: Path) -> None:
    """Raises CorruptObject, naming the file, unless its header names each tensor once, as in torch.

    Raises OSError as the system does.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES + length:
            raise _corrupt(path, f"its header claims {length} bytes, the file has {size}")
        if length > MAX_HEADER_BYTES:
            raise _corrupt(path, f"its header claims {length} bytes, at most {MAX_HEADER_BYTES}")
        data = stream.read(length)
    try:
        header = parse_json(data.decode("utf-8"))
    except ValueError as error:
        raise _corrupt(path, f"its header: {error}") from error
    if not isinstance(header, dict):
        raise _corrupt(path, f"its header is a {type(header).__name__}, expected an object")
    end = size - _LENGTH_BYTES - length
    for name, entry in header.items():
        if name != _METADATA and (problem := _problem(entry, end=end)) is not None:
            raise _corrupt(path, f"tensor {name!r:.100}: {problem}")


def _problem(entry: Any, *, end: int) -> str | None:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        return f"expected an object with {', '.join(sorted(_FIELDS))}"
    if not isinstance(entry["dtype"], str):
        return "its dtype is no text"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _whole(shape, most=_LARGEST) or len(shape) > MAX_DIMENSIONS:
        return f"the shape {str(shape)[:80]} is none that torch can hold"
    if not _whole(offsets, most=end) or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004
        return f"it lies at {str(offsets)[:80]} of {end} bytes"
    return None


def _whole(values: Any, *, most: int) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= most for value in values
    )


def _corrupt(path: Path, problem: str) -> CorruptObject:
    return CorruptObject(f"{path} is no safetensors file: {problem}")
