"""Arrays as data sets: `.npy`, `.npz`, safetensors and `.pt` files; item i is row i of each."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.datasets.split import Split, read_split, split_rows
from epochal.data.errors import DataError
from epochal.data.files.named import Files, list_files
from epochal.data.hashing import digest
from epochal.data.loading.in_memory import InMemory
from epochal.data.traces import in_one_line

# N rows, K of them in the part, B of a batch

IN_MEMORY_BYTES = 2 << 30
"""Arrays of up to so many bytes are gathered as tensors in the training process. Larger `.npy`
files stay on the disk: processes of the loader may read their rows."""
SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
_FLOATS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def arrays(
    input: str,  # noqa: A002 - as items call it
    target: str | None = None,
    path: str | None = None,
    split: Split | Mapping[str, Any] | None = None,
    *,
    more: Mapping[str, str] | None = None,
    dtype: str | None = "float32",
) -> InMemory | MappedArrays:
    """Rows of arrays, as `(input, target)`; with `more` dicts of `input`, `target` and those.

    path: a file that holds several arrays by name: `.npz`, `.safetensors`, or a `.pt` with a dict
    of tensors; `input`, `target` and `more` are names in it. none: these are files themselves:
    `.npy`, or another with one array; of this machine or any fsspec URL. more: further parts of an
    item, key to array. dtype: that arrays of floating point numbers are given as; none: as they
    are stored. A target of whole numbers, one for each row, is given as int64, and each of them
    has its share in the parts of a `split`; all else keeps its type.

    `.npy` files are mapped into memory; above 2 GB their rows are read when they are needed.
    Raises DataError, naming the file, for one that is missing, damaged, of objects (which would be
    unpickled) or of another number of rows.
    """
    if dtype is not None and dtype not in _FLOATS:
        raise DataError(f"arrays: dtype: found {dtype!r}; expected one of {', '.join(_FLOATS)}")
    if twice := {"input", "target"} & set(more or ()):
        raise DataError(f"arrays: more: {min(twice)!r} is an argument of its own")
    wanted = {"input": input, **({} if target is None else {"target": target}), **(more or {})}
    files, tensors = _of_one_file(path, wanted) if path is not None else _of_files(wanted)
    count = _num_rows(tensors, wanted)
    labels_N = _labels(tensors.get("target"))
    if labels_N is not None:
        tensors["target"] = torch.from_numpy(labels_N)
    part, rows_K = read_split(split, name="arrays"), None
    if part is not None:
        rows_K = split_rows(part, count, labels_N=labels_N, name="arrays")
    told = _Told(
        files,
        rows_K,
        says=[wanted if path is not None else sorted(wanted), dtype, part and part.model_dump()],
    )
    names = list(tensors) if more else []
    kind = None if dtype is None else _FLOATS[dtype]
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    if num_bytes > IN_MEMORY_BYTES and any(one[0].name.endswith(".npy") for one in files):
        return MappedArrays(list(tensors.values()), names, told, kind, labels_N)
    return InMemory(
        *(_as(tensor if rows_K is None else tensor[rows_K], kind) for tensor in tensors.values()),
        names=names,
        fingerprint=told.fingerprint,
        path_of=told.path_of,
        stamp=told.stamp,
    )


class MappedArrays:
    """Rows of arrays that stay on the disk; made by `arrays`."""

    thread_safe = True
    unread = True  # a mapping has no position that processes would share

    def __init__(
        self,
        tensors: Sequence[torch.Tensor],
        names: Sequence[str],
        told: _Told,
        dtype: torch.dtype | None,
        labels_N: npt.NDArray[np.int64] | None,
    ) -> None:
        self._tensors = tensors
        self._names = names
        self._told = told
        self._dtype = dtype
        self._count = len(tensors[0]) if told.rows_K is None else len(told.rows_K)
        self.fingerprint, self.path_of, self.stamp = told.fingerprint, told.path_of, told.stamp
        if labels_N is not None:
            self.targets = labels_N if told.rows_K is None else labels_N[told.rows_K]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        rows_B = np.asarray(positions, dtype=np.int64)
        if len(rows_B) and not (-self._count <= rows_B.min() and rows_B.max() < self._count):
            raise IndexError(f"positions {positions} of {self._count}")
        rows_B %= self._count
        if self._told.rows_K is not None:
            rows_B = self._told.rows_K[rows_B]
        index_B = torch.from_numpy(rows_B)
        parts = [_as(tensor.index_select(0, index_B), self._dtype) for tensor in self._tensors]
        if self._names:
            return [dict(zip(self._names, item, strict=True)) for item in zip(*parts, strict=True)]
        return list(zip(*parts, strict=True))


class _Told:
    """What is known of the rows without reading them. says: what else the content depends on."""

    def __init__(
        self, files: Sequence[Files], rows_K: npt.NDArray[np.int64] | None, *, says: Any
    ) -> None:
        self._files = files
        self._says = says
        self.rows_K = rows_K

    def fingerprint(self) -> str:
        """Names the content."""
        return digest("arrays", [self._says, [one.content_digest() for one in self._files]])

    def stamp(self) -> str:
        """Changes whenever a file does."""
        return digest("arrays-stamp", [one.stamp() for one in self._files])

    def path_of(self, position: int) -> str:
        """The first file, and the row in it, from 0."""
        row = position if self.rows_K is None else int(self.rows_K[position])
        return f"{self._files[0][0].name} row {row}"


def _as(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)


def _labels(target: torch.Tensor | None) -> npt.NDArray[np.int64] | None:
    if target is None or target.ndim != 1:
        return None
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return None
    labels_N: npt.NDArray[np.int64] = target.to(torch.int64).numpy()
    return labels_N


def _num_rows(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, str]) -> int:
    for name, tensor in tensors.items():
        if not tensor.ndim:
            raise DataError(f"arrays: {wanted[name]} is one number; expected rows")
    count = len(tensors["input"])
    for name, tensor in tensors.items():
        if len(tensor) != count:
            raise DataError(
                f"arrays: {wanted['input']} has {count} rows, {wanted[name]} has {len(tensor)}; "
                "expected one row for each sample in all"
            )
    if not count:
        raise DataError(f"arrays: {wanted['input']} has no rows; expected one at least")
    return count


def _of_files(wanted: Mapping[str, str]) -> tuple[list[Files], dict[str, torch.Tensor]]:
    files, tensors = [], {}
    for name, path in wanted.items():
        file = _file(path)
        held = _held(file)
        if len(held) != 1:
            raise DataError(
                f"arrays: {file[0].name} holds {', '.join(map(repr, held)) or 'nothing'}; give it "
                "as `path`, and as `input` and `target` names of arrays in it"
            )
        files.append(file)
        tensors[name] = next(iter(held.values()))()
    return files, tensors


def _of_one_file(
    path: str, wanted: Mapping[str, str]
) -> tuple[list[Files], dict[str, torch.Tensor]]:
    file = _file(path)
    held = _held(file)
    tensors = {}
    for name, key in wanted.items():
        if key not in held:
            near = difflib.get_close_matches(key, [*held], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(
                f"arrays: {file[0].name} holds no {key!r}; {hint}it holds "
                f"{', '.join(map(repr, held))}"
            )
        tensors[name] = held[key]()
    return [file], tensors


def _file(path: str) -> Files:
    files = list_files(path, suffixes=SUFFIXES, name="arrays")
    suffix = Path(files[0].name).suffix.lower()
    if len(files) > 1 or suffix not in SUFFIXES:
        raise DataError(
            f"arrays: path: {path!r} names {files[0].name}{', …' if len(files) > 1 else ''}; "
            f"expected one file that ends in {', '.join(SUFFIXES)}"
        )
    return files


class _Array:
    """Reads one array of a file. Raises DataError."""

    def __init__(self, file: str, read: Any, *arguments: Any) -> None:
        self._file = file
        self._read = read
        self._arguments = arguments

    def __call__(self) -> torch.Tensor:
        value = _readable(self._file, self._read, *self._arguments)
        if isinstance(value, torch.Tensor):
            return value.detach()
        if not isinstance(value, np.ndarray):  # NumPy gives the bytes of what is no array file
            raise DataError(f"arrays: {self._file} cannot be read: a part of it is no array")
        if value.dtype.kind not in "biufc":
            raise DataError(f"arrays: {self._file} is of {value.dtype}; expected numbers")
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native)


def _readable(file: str, read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except Exception as error:  # of damaged bytes the readers raise errors of many kinds
        raise DataError(f"arrays: {file} cannot be read: {in_one_line(error):.300}") from error


def _held(files: Files) -> dict[str, _Array]:
    """The arrays of a file by name, to be read when they are called. Raises DataError."""
    name, path = files[0].name, files.local_path(0)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {"": _Array(name, _map, path)}
    if suffix == ".npz":
        names = _readable(name, _names, path)
        return {key: _Array(name, _load, path, key) for key in names}
    if suffix == ".safetensors":
        from safetensors import safe_open

        opened = _readable(name, partial(safe_open, framework="pt"), str(path))
        return {key: _Array(name, opened.get_tensor, key) for key in _keys(opened)}
    loaded = _readable(name, _load_torch, path)
    found = {"": loaded} if isinstance(loaded, torch.Tensor) else loaded
    if not isinstance(found, dict) or not all(
        isinstance(one, torch.Tensor) for one in found.values()
    ):
        raise DataError(
            f"arrays: {name} holds a {type(loaded).__name__}; expected a tensor, or a dict of "
            "tensors"
        )
    return {str(key): _Array(name, lambda value: value, one) for key, one in found.items()}


def _keys(opened: Any) -> list[str]:
    return list(opened.keys())


def _map(path: Path) -> npt.NDArray[Any]:
    # Copied on write, since torch takes nothing that cannot be written.
    mapped: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped


def _names(path: Path) -> list[str]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
        return list(held.files)


def _load(path: Path, key: str) -> npt.NDArray[Any]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
        array: npt.NDArray[Any] = held[key]
    return array


def _load_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an old pickle protocol; an error follows
        return torch.load(path, map_location="cpu", weights_only=True)
