"""From a part of a sample, as bytes in a shard, to what an item holds, and back. No pickle.

What a part is, its kind says: the ending of its name. Which of them are images and masks is told
here, what becomes of those in `epochal.data.files.images`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import torch

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif")
NUMBERS = ("cls", "cls2", "class", "count", "index", "inx", "id")
TEXTS = ("txt", "text", "transcript")
_MASK = re.compile(r"(seg|mask|label|semseg)[a-z0-9_-]*\.(png|tif|tiff|bmp)")
_NPY_HEADER = re.compile(
    rb"\{'descr': '(?P<descr>[<>|=]?[a-zA-Z][0-9]{0,9})', 'fortran_order': "
    rb"(?P<by_columns>True|False), 'shape': \((?P<shape>(?:[0-9]{1,18},? ?)*)\), ?\}[ ]*\n"
)
_AS_INTEGERS = {
    torch.bfloat16: (torch.int16, "bfloat16"),
    torch.float8_e4m3fn: (torch.uint8, "float8_e4m3fn"),
    torch.float8_e5m2: (torch.uint8, "float8_e5m2"),
}
"""Types that NumPy lacks → the type as which their bits are written, and their name."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_BY_NAME = {name: dtype for dtype, (_, name) in _AS_INTEGERS.items()}


class Undecodable(ValueError):
    """Bytes that are not what the part's name says; the text says what they are."""


def is_image(part: str) -> bool:
    """Whether parts of that name are pictures, masks not among them."""
    return part.rpartition(".")[2] in IMAGES and not is_mask(part)


def is_mask(part: str) -> bool:
    """Whether the pixels of parts of that name are class numbers."""
    return _MASK.fullmatch(part) is not None


def decode(part: str, data: bytes) -> Any:
    """What the bytes of a part are, images apart. Raises Undecodable.

    Of a kind that is not known they stay bytes.
    """
    kind = part.rpartition(".")[2]
    read = partial(_array, part) if kind == "npy" else _READERS.get(kind)
    try:
        return data if read is None else read(data)
    except (ValueError, TypeError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise Undecodable(f"{type(error).__name__}: {text}") from error


_READERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(NUMBERS, int),
    **dict.fromkeys(TEXTS, bytes.decode),
    "json": json.loads,
}


def _array(part: str, data: bytes) -> torch.Tensor | npt.NDArray[Any]:
    """A tensor where the name ends with `tensor.npy` or `<type>.tensor.npy`, else an array."""
    array = _npy(data)
    names = part.split(".")
    if names[-2:-1] != ["tensor"]:
        return array
    tensor = torch.from_numpy(array)
    dtype = _BY_NAME.get(names[-3]) if len(names) > 2 else None  # noqa: PLR2004 - name, type, …
    return tensor if dtype is None else tensor.view(dtype)


def _npy(data: bytes) -> npt.NDArray[Any]:
    """The array of an npy file of version 1 or 2, whose header says a plain type and a shape.

    NumPy's own reader parses the header as Python, which damaged ones lead to a dozen errors, and
    makes room for what it says before it looks whether that is there.
    """
    version = data[6:8]
    length_bytes = {b"\1\0": 2, b"\2\0": 4}.get(version)
    if not data.startswith(b"\x93NUMPY") or length_bytes is None:
        raise Undecodable("no array file of version 1 or 2")
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    header = _NPY_HEADER.fullmatch(data[start:end])
    if header is None:
        raise Undecodable(f"an array of the form {data[start:end][:80]!r}; expected plain numbers")
    dtype = np.dtype(header["descr"].decode())
    if dtype.hasobject or dtype.kind not in "biufcSU":
        raise Undecodable(f"an array of {dtype}; expected plain numbers or texts")
    shape = tuple(int(one) for one in header["shape"].replace(b",", b" ").split())
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - end:
        raise Undecodable(f"an array of shape {shape} and {dtype} in {len(data) - end} bytes")
    if not count * dtype.itemsize:
        return np.zeros(shape, dtype=dtype)
    order: Literal["F", "C"] = "F" if header["by_columns"] == b"True" else "C"
    array = np.frombuffer(data, dtype=dtype, offset=end).reshape(shape, order=order)
    return array.copy(order="K")


def split_item(item: Any) -> tuple[str, dict[str, bytes]]:
    """An item's form as text, and its parts: name → bytes. Equal items give equal bytes.

    Raises TypeError, naming the part, for what no shard can hold bit by bit.
    """
    if isinstance(item, Mapping):
        kind, named = "dict", {_name(key): value for key, value in item.items()}
    elif isinstance(item, tuple | list):
        kind = "list" if isinstance(item, list) else "tuple"
        named = {str(place): value for place, value in enumerate(item)}
    else:
        kind, named = "one", {"0": item}
    parts: dict[str, bytes] = {}
    for name, value in named.items():
        ending, data = _encoded(unquote(name), value)
        parts[f"{name}.{ending}"] = data
    return json.dumps({kind: list(parts)}, separators=(",", ":")), parts


def join_item(form: str) -> tuple[str, dict[str, str]]:
    """How items of that form are put together: `dict`, `list`, `tuple` or `one`, and name → part.

    Raises ValueError for what is no form of an item.
    """
    read = json.loads(form)
    if not isinstance(read, dict) or len(read) != 1:
        raise ValueError(form)
    ((kind, parts),) = read.items()
    known = kind in {"dict", "list", "tuple", "one"}
    if not known or not isinstance(parts, list) or not all(isinstance(one, str) for one in parts):
        raise ValueError(form)
    return kind, {unquote(part.split(".", 1)[0]): part for part in parts}


def _name(key: Any) -> str:
    """A key as it stands in members' names, in which readers take no capitals and no dots."""
    if not isinstance(key, str) or not key:
        raise TypeError(f"an item has the key {key!r:.60}; expected texts as keys")
    return "".join(
        chr(one) if chr(one) in _PLAIN else f"%{one:02x}"
        for one in key.encode("utf-8", "surrogatepass")
    )


def _encoded(name: str, value: Any) -> tuple[str, bytes]:
    if isinstance(value, torch.Tensor):
        return _of_tensor(name, value)
    if isinstance(value, np.ndarray | np.generic):
        return "npy", _npy_bytes(name, np.asarray(value))
    if isinstance(value, bytes):
        return "bin", value
    if _is_picture(value):
        if value.mode not in {"L", "RGB"}:
            raise TypeError(f"{name!r} is an image of mode {value.mode}; convert it to RGB or L")
        stream = BytesIO()
        value.save(stream, "PNG", compress_level=1)
        return "png", stream.getvalue()
    _check_json(name, value)
    return "json", json.dumps(value, separators=(",", ":")).encode()


def _of_tensor(name: str, tensor: torch.Tensor) -> tuple[str, bytes]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(f"{name!r} is a tensor of layout {tensor.layout}; expected a dense one")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    as_integer = _AS_INTEGERS.get(plain.dtype)
    if as_integer is None:
        return "tensor.npy", _npy_bytes(name, plain.numpy())
    return f"{as_integer[1]}.tensor.npy", _npy_bytes(name, plain.view(as_integer[0]).numpy())


def _npy_bytes(name: str, array: npt.NDArray[Any]) -> bytes:
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"{name!r} is an array of {array.dtype}; expected numbers or texts")
    stream = BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _is_picture(value: Any) -> bool:
    return type(value).__module__.startswith("PIL.") and hasattr(value, "save")


def _check_json(name: str, value: Any) -> None:
    """Raises TypeError for what JSON would give back as another value."""
    if value is None or isinstance(value, bool | int | float | str):
        if type(value) in {type(None), bool, int, float, str}:
            return
    elif type(value) is list:
        for one in value:
            _check_json(name, one)
        return
    elif type(value) is dict and all(type(key) is str for key in value):
        for one in value.values():
            _check_json(name, one)
        return
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(
        f"{name!r} holds a {kind}; expected tensors, arrays, numbers, texts, bytes, images, and "
        "lists and dicts of numbers and texts; convert it in the data set"
    )
