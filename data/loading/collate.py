"""From the items of a micro-batch to the batch: what a config names for it, and padding.

A collate is a callable that takes the list of a micro-batch's items and gives the batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from epochal.data.config.loader import COLLATE
from epochal.data.errors import TargetError, passes_through
from epochal.data.traces import in_one_line

Collate: TypeAlias = Callable[[list[Any]], Any]

# B samples, L the longest of their lengths; … further dimensions


def as_collate(given: Callable[..., Any], args: Mapping[str, Any]) -> Collate:
    """The collate of a class, of a function of the items, or of a factory.

    A function is a factory where `args` leave none of its arguments without a value. Raises
    TargetError.
    """
    if not inspect.isclass(given) and _wants_items(given, args):
        missing = [name for name in _needed(given) if name not in args]
        if missing:
            raise TargetError(
                f"{COLLATE}: its target needs {', '.join(missing)}, which args do not give; args: "
                f"{dict(args)}"
            )
        return partial(given, **args)
    try:
        made = given(**args)
    except BaseException as error:  # a user's class may raise anything
        if passes_through(error):
            raise
        raise TargetError(
            f"{COLLATE}: its target raised {in_one_line(error)}; args: {dict(args)}"
        ) from error
    if not callable(made):
        raise TargetError(
            f"{COLLATE}: its target returned a {type(made).__name__}, expected a callable that "
            "takes the list of a micro-batch's items"
        )
    return made  # type: ignore[no-any-return]  # callable() narrows Any to an untyped callable


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # some built-ins tell none, such as `list`'s relatives
        return None


def _needed(function: Callable[..., Any]) -> list[str]:
    """Its arguments by name that have no value of their own."""
    return [
        one.name
        for one in _parameters(function) or ()
        if one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is inspect.Parameter.empty
    ]


def _wants_items(function: Callable[..., Any], args: Mapping[str, Any]) -> bool:
    """Whether an argument by position is left once `args` are bound."""
    parameters = _parameters(function)
    if parameters is None:
        return not args
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        one.kind in kinds and one.default is inspect.Parameter.empty and one.name not in args
        for one in parameters
    )


def check_collated(batch: Any, *, count: int) -> None:
    """Raises ValueError if a collate gave something else than the batch of `count` items.

    A dict may hold anything. Else something in it, or itself, has `count` rows.
    """
    if isinstance(batch, Mapping):
        if not batch:
            raise ValueError(f"it gave an empty dict for {count} items")
        return
    parts = batch if isinstance(batch, tuple | list) else ()
    if not any(_rows(part) == count for part in (batch, *parts)):
        raise ValueError(
            f"for {count} items it gave {_described(batch)}; expected a dict, or a tensor or "
            f"tuple whose first dimension is that of the {count} samples: no item may be left out, "
            "for each is in the plan of the epoch"
        )


def _rows(part: Any) -> int | None:
    if isinstance(part, Tensor):
        return len(part) if part.ndim else None
    return len(part) if hasattr(part, "__len__") and not isinstance(part, str | bytes) else None


def _described(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {', '.join(map(_described, batch[:4])) or 'nothing'}"
    return "None" if batch is None else f"a {type(batch).__name__}"


def pad(
    items: Sequence[Any],
    *,
    keys: Sequence[str | int],
    value: float | Mapping[str, float] = 0,
    multiple_of: int = 1,
    lengths: str | None = None,
    mask: str | None = None,
) -> Any:
    """A batch whose parts `keys` are padded at their ends to the longest among them.

    items: dicts, or tuples, whose parts are named by their place from 0. keys: parts whose first
    dimension differs from item to item: tensors, arrays or lists of numbers, of shape (length, …),
    which become one of shape (B, L, …). value: what is put behind them; or by key, 0 for others.
    multiple_of: L is made a multiple of it. lengths, mask: names under which a dict's batch has the
    lengths of the first key, int64 of shape (B,), and which of its places are no padding, int64 of
    shape (B, L), as models of Hugging Face take it.

    Other parts are put together as torch does; parts that hold None or texts are lists. Raises
    ValueError, naming the part.
    """
    first = items[0]
    is_dict = isinstance(first, Mapping)
    if not keys or multiple_of < 1:
        raise ValueError(
            f"pad: found keys {list(keys)} and multiple_of {multiple_of}; expected the names of "
            "the parts to pad, and a number from 1"
        )
    if not is_dict and (lengths is not None or mask is not None):
        raise ValueError(
            "pad: lengths and mask are parts of a dict, but items are of type "
            f"{type(first).__name__}; give dicts in the data set, or leave them out"
        )
    names: list[Any] = [*first] if is_dict else [*range(len(first))]
    unknown = [key for key in keys if key not in names]
    if unknown:
        raise ValueError(f"pad: items have no part {unknown[0]!r}; they have {names}")
    by_key = value if isinstance(value, Mapping) else dict.fromkeys(map(str, keys), value)
    parts: dict[Any, Any] = {}
    for name in names:
        column = [item[name] for item in items]
        if name in keys:
            parts[name] = _padded(
                column, by_key.get(str(name), 0), multiple_of=multiple_of, key=name
            )
        else:
            parts[name] = _as_they_are(column)
    lengths_B = torch.tensor([len(item[keys[0]]) for item in items])
    if lengths is not None:
        parts[lengths] = lengths_B
    if mask is not None:
        places_L = torch.arange(parts[keys[0]].shape[1])
        parts[mask] = (places_L < lengths_B[:, None]).to(torch.int64)
    return parts if is_dict else tuple(parts.values())


def _padded(column: list[Any], value: float, *, multiple_of: int, key: str | int) -> Tensor:
    tensors = [torch.as_tensor(part) for part in column]
    shapes = {tuple(one.shape[1:]) if one.ndim else None for one in tensors}
    types = {one.dtype for one in tensors}
    if None in shapes or len(shapes) > 1 or len(types) > 1:
        found = sorted({f"{one.dtype} of shape {tuple(one.shape)}" for one in tensors})
        raise ValueError(
            f"pad: the part {key!r} is {' and '.join(found[:4])}; expected one type, and shapes "
            "that differ in their first dimension alone"
        )
    padded_BL = pad_sequence(tensors, batch_first=True, padding_value=value)
    more = -padded_BL.shape[1] % multiple_of
    if not more:
        return padded_BL
    return functional.pad(padded_BL, (*(0, 0) * (padded_BL.ndim - 2), 0, more), value=value)


def _as_they_are(column: list[Any]) -> Any:
    if any(part is None or isinstance(part, str) for part in column):
        return column
    return default_collate(column)
