"""In what two files of one artifact differ: which tensor or column, how many numbers, how much.

One flipped bit is one number of one tensor; another kernel moves most numbers by a little; other
data or another order moves all of them by a lot. Compares bits, so -0 and 0 differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# N numbers, B bytes of one


@dataclass(frozen=True)
class DifferentPart:
    """A part of an artifact that is another one.

    artifact: its name in the record. part: a tensor's or a column's name, or the place in a JSON
    document. different: how many numbers are others, of how many. first: the indices of the first
    of them, in the order of memory. stored, computed: what is there. largest: the largest absolute
    difference; None where one is no number or not finite. bits: how many bits are others in all.
    problem: why numbers cannot be compared, in words; then of the rest only the names hold.
    """

    artifact: str
    part: str
    different: int = 0
    of: int = 0
    first: tuple[int, ...] = ()
    stored: float | int | str | None = None
    computed: float | int | str | None = None
    largest: float | None = None
    bits: int | None = None
    problem: str | None = None

    @property
    def text(self) -> str:
        """As people read it."""
        place = f"{self.artifact}: {self.part}" if self.part else self.artifact
        if self.problem is not None:
            return f"{place}: {self.problem}"
        size = "" if self.largest is None else f", the largest difference {self.largest:.3g}"
        bits = f" ({self.bits} bit{'s' * (self.bits != 1)} in all)" if self.bits else ""
        where = f" at {', '.join(map(str, self.first))}" if self.first else ""
        return (
            f"{place}: {self.different} of {self.of} numbers{bits}, the first{where}: "
            f"{_shown(self.stored)} → {_shown(self.computed)}{size}"
        )

    def as_object(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {**asdict(self), "first": list(self.first)}


def parts_that_differ(artifact: str, stored: Path, computed: Path) -> list[DifferentPart]:
    """The parts of two files of one artifact, `.safetensors`, `.parquet` or `.json`.

    The bytes of both are known to be those that were written. Raises CorruptObject, OSError, or
    ValueError for a file of another kind.
    """
    return list(_READERS[computed.suffix](artifact, stored, computed))


def _tensors(artifact: str, stored: Path, computed: Path) -> Iterator[DifferentPart]:
    from epochal.engine.checkpoint.serialize import load_tensors

    before, after = load_tensors(stored, device="cpu"), load_tensors(computed, device="cpu")
    yield from _of_one_alone(artifact, before, after)
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if one.shape != other.shape or one.dtype != other.dtype:
            yield _unlike(artifact, name, (one.dtype, one.shape), (other.dtype, other.shape))
            continue
        import torch

        raw_NB, others_NB = (
            tensor.reshape(-1)
            .contiguous()
            .view(torch.uint8)
            .numpy()
            .reshape(tensor.numel(), tensor.element_size())
            for tensor in (one, other)
        )
        at = _places(raw_NB, others_NB)
        if at.size:
            flat, flat_other = one.reshape(-1)[at], other.reshape(-1)[at]
            if one.is_complex() or one.is_floating_point():
                wide = torch.complex128 if one.is_complex() else torch.float64
                gaps = (flat.to(wide) - flat_other.to(wide)).abs().numpy()
            else:
                gaps = _exact_gaps(flat.numpy(), flat_other.numpy())
            yield DifferentPart(
                artifact,
                name,
                int(at.size),
                one.numel(),
                _indices(at[0], tuple(one.shape)),
                _number(flat[0].item()),
                _number(flat_other[0].item()),
                _largest(gaps),
                _bits(raw_NB[at], others_NB[at]),
            )


def _columns(artifact: str, stored: Path, computed: Path) -> Iterator[DifferentPart]:
    import pyarrow.parquet as pq

    before, after = pq.read_table(stored), pq.read_table(computed)
    names = before.schema.names, after.schema.names
    yield from _of_one_alone(artifact, dict.fromkeys(names[0]), dict.fromkeys(names[1]))
    for name in (one for one in names[0] if one in names[1]):
        one_N, other_N = (
            table.column(name).to_numpy(zero_copy_only=False) for table in (before, after)
        )
        if one_N.shape != other_N.shape or one_N.dtype != other_N.dtype:
            yield _unlike(
                artifact, name, (one_N.dtype, one_N.shape), (other_N.dtype, other_N.shape)
            )
        else:
            yield from _column(artifact, name, one_N, other_N)


def _column(
    artifact: str, name: str, one_N: npt.NDArray[Any], other_N: npt.NDArray[Any]
) -> Iterator[DifferentPart]:
    if one_N.dtype == object:  # texts, and lists of numbers
        at = np.array(
            [n for n, (a, b) in enumerate(zip(one_N, other_N, strict=True)) if not _alike(a, b)],
            np.int64,
        )
        largest = bits = None
    else:
        raw_NB, others_NB = (
            np.ascontiguousarray(column).view(np.uint8).reshape(len(column), column.itemsize)
            for column in (one_N, other_N)
        )
        at = _places(raw_NB, others_NB)
        bits = _bits(raw_NB[at], others_NB[at])
        if one_N.dtype.kind in "iu":
            largest = _largest(_exact_gaps(one_N[at], other_N[at]))
        else:
            wide_N, other_wide_N = (column[at].astype(np.float64) for column in (one_N, other_N))
            largest = _largest(np.abs(wide_N - other_wide_N))
    if at.size:
        first = int(at[0])
        yield DifferentPart(
            artifact,
            name,
            int(at.size),
            len(one_N),
            (first,),
            _number(one_N[first]),
            _number(other_N[first]),
            largest,
            bits,
        )


def _document(artifact: str, stored: Path, computed: Path) -> Iterator[DifferentPart]:
    yield from _values(
        artifact, "", json.loads(stored.read_bytes()), json.loads(computed.read_bytes())
    )


def _values(artifact: str, place: str, one: Any, other: Any) -> Iterator[DifferentPart]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            below = f"{place}.{name}" if place else name
            if name in one and name in other:
                yield from _values(artifact, below, one[name], other[name])
            else:
                yield _only(artifact, below, stored=name in one)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _values(artifact, f"{place}.{index}", a, b)
    elif not _alike(one, other):
        numbers = all(type(value) in {int, float} for value in (one, other))
        largest = _largest(np.array([abs(one - other)])) if numbers else None
        yield DifferentPart(
            artifact,
            place,
            1,
            1,
            (),
            _number(one),
            _number(other),
            largest,
        )


_READERS = {".safetensors": _tensors, ".parquet": _columns, ".json": _document}


def _of_one_alone(
    artifact: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[DifferentPart]:
    for name in sorted(before.keys() ^ after.keys()):
        yield _only(artifact, name, stored=name in before)


def _only(artifact: str, name: str, *, stored: bool) -> DifferentPart:
    which = "stored" if stored else "computed"
    return DifferentPart(artifact, name, problem=f"only what is {which} has it")


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        if one.dtype == object:  # lists of lists
            return len(one) == len(other) and all(map(_alike, one, other))
        return (one.dtype, one.shape) == (other.dtype, other.shape) and (
            one.tobytes() == other.tobytes()
        )
    return repr(one) == repr(other)  # of a number, all its digits and the sign of a zero


def _unlike(artifact: str, name: str, stored: Any, computed: Any) -> DifferentPart:
    told = [f"{kind} of shape {tuple(shape)}" for kind, shape in (stored, computed)]
    return DifferentPart(artifact, name, problem=f"{told[0]} is stored, {told[1]} computed")


def _places(
    raw_NB: npt.NDArray[np.uint8], others_NB: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """The numbers of which any byte is another one."""
    return np.flatnonzero((raw_NB != others_NB).any(axis=1))


def _bits(raw_NB: npt.NDArray[np.uint8], others_NB: npt.NDArray[np.uint8]) -> int:
    return int(np.unpackbits(raw_NB ^ others_NB).sum())


def _indices(at: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(int(at), shape)) if shape else ()


def _exact_gaps(one_N: npt.NDArray[Any], other_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of integers, as Python's own: a float has not all of 64 bits."""
    gaps_N: npt.NDArray[Any] = np.abs(one_N.astype(object) - other_N.astype(object))
    return gaps_N


def _largest(gaps_N: npt.NDArray[Any]) -> float | None:
    try:
        largest = float(gaps_N.max()) if gaps_N.size else 0.0
    except OverflowError:  # of an integer
        return None
    return largest if math.isfinite(largest) else None


def _number(value: Any) -> float | int | str:
    """The value as JSON can hold it."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return float(value)
    return str(value)[:80]


def _shown(value: float | str | None) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
