"""The header of a safetensors file, looked at before the file is loaded.

The format's own reader takes the last of two tensors of one name, and a dimension that torch
cannot hold. Reads the header alone, never a tensor.
(https://huggingface.co/docs/safetensors: 8 bytes of length, JSON, then the tensors' bytes)
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from epochal.data.errors import Damaged

MAX_HEADER_BYTES = 1 << 25  # some 250,000 tensors
MAX_DIMENSIONS = 64  # torch takes no more
_LENGTH_BYTES = 8
_LARGEST = (1 << 63) - 1
_FIELDS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"


def check_header(path: Path) -> None:
    """Raises Damaged, naming the file, unless its header names each tensor once, as torch can.

    Raises OSError as the system does.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES + length:
            raise _damaged(path, f"its header claims {length} bytes, the file has {size}")
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"its header claims {length} bytes, at most {MAX_HEADER_BYTES}")
        data = stream.read(length)
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(path, f"its header is a {type(header).__name__}, expected an object")
    end = size - _LENGTH_BYTES - length
    for name, entry in header.items():
        if name != _METADATA and (problem := _problem(entry, end=end)) is not None:
            raise _damaged(path, f"tensor {name!r:.100}: {problem}")


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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has one key twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _damaged(path: Path, problem: str) -> Damaged:
    return Damaged(f"{path} is no safetensors file: {problem}")
