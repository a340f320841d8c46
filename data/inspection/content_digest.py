"""The digest of a data set's items: of their content alone, not of where or how it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.hashing import ContentDigest, FramedParts, QuickDigest, quick_digests

EXPECTED = "tensors, arrays, numbers, texts, None, and tuples, lists or dicts of them"


class UnsupportedItem(TypeError):
    """A part of an item that no batch can be made of; the text says which."""


def row_digests(tensor: torch.Tensor) -> npt.NDArray[np.uint64]:
    """A checksum of each row of a dense tensor of shape (N, …): uint64 of shape (N,)."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return quick_digests(plain.reshape(len(plain), -1).view(torch.uint8).numpy())


def add_item(
    content: ContentDigest | FramedParts | QuickDigest, item: Any, *, place: str = "item"
) -> None:
    """Adds an item with all its parts. Raises UnsupportedItem, naming the part's `place`.

    Type, shape and bytes of each part count: the same numbers as float32 and float64 differ.
    """
    if isinstance(item, torch.Tensor):
        add_tensor(content, item, place=place)
    elif isinstance(item, np.ndarray | np.generic):
        _add_array(content, np.asarray(item), place=place)
    elif isinstance(item, bool | int | float):
        content.add(type(item).__name__, repr(item).encode())
    elif isinstance(item, str):
        content.add("str", item.encode("utf-8", "surrogatepass"))
    elif isinstance(item, bytes):
        content.add("bytes", item)
    elif item is None:  # a collate may know what it stands for
        content.add("None", b"")
    elif isinstance(item, Mapping):
        _add_mapping(content, item, place=place)
    elif isinstance(item, tuple | list):
        content.add("tuple", str(len(item)).encode())
        for number, part in enumerate(item):
            add_item(content, part, place=f"{place}[{number}]")
    else:
        kind = f"a {type(item).__module__}.{type(item).__qualname__}"
        raise UnsupportedItem(f"{place} is {kind}; expected {EXPECTED}")


def add_tensor(
    content: ContentDigest | FramedParts | QuickDigest, tensor: torch.Tensor, *, place: str
) -> None:
    """Adds a tensor: dtype, shape and bytes, whatever its device and strides."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UnsupportedItem(
            f"{place} is a tensor of layout {tensor.layout}; expected a dense one"
        )
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    dtype = str(plain.dtype).removeprefix("torch.")
    data = plain.reshape(-1).view(torch.uint8).numpy()
    content.add(f"tensor {dtype} {list(plain.shape)}", data.data)


def _add_array(
    content: ContentDigest | FramedParts | QuickDigest, array: np.ndarray[Any, Any], *, place: str
) -> None:
    if array.dtype.kind not in "biufc":
        raise UnsupportedItem(f"{place} is an array of {array.dtype}; expected numbers")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)  # the same on every machine
    content.add(
        f"array {little.dtype.str} {list(array.shape)}",
        np.ascontiguousarray(little).reshape(-1).view(np.uint8).data,
    )


def _add_mapping(
    content: ContentDigest | FramedParts | QuickDigest, item: Mapping[Any, Any], *, place: str
) -> None:
    content.add("dict", str(len(item)).encode())
    for name, part in item.items():  # in the item's own order, which its batch keeps
        if not isinstance(name, str):
            raise UnsupportedItem(f"{place} has the key {name!r:.40}; expected texts as keys")
        content.add("key", name.encode("utf-8", "surrogatepass"))
        add_item(content, part, place=f"{place}[{name!r}]")


def not_finite_rows(tensor: torch.Tensor) -> list[int]:
    """Rows of a tensor of shape (N, …) with a number that is NaN or infinite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return []
    finite_N = torch.isfinite(tensor.detach().reshape(len(tensor), -1)).all(dim=1)
    return torch.nonzero(~finite_N).reshape(-1).tolist()


def is_finite(item: Any) -> bool:
    """Whether all floating-point numbers of the item's tensors, arrays and numbers are finite."""
    if isinstance(item, torch.Tensor):
        floats = item.is_floating_point() or item.is_complex()
        return not floats or bool(torch.isfinite(item).all())
    if isinstance(item, np.ndarray | np.generic):
        return item.dtype.kind not in "fc" or bool(np.isfinite(item).all())
    if isinstance(item, float):
        return math.isfinite(item)
    if isinstance(item, Mapping):
        return all(map(is_finite, item.values()))
    return not isinstance(item, tuple | list) or all(map(is_finite, item))
