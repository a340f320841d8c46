"""Weights of another training into a model: what may differ is named, none is left out silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from epochal.data.errors import StateMismatch
from epochal.engine.checkpoint.serialize import model_tensors
from epochal.engine.model.state import Slice

MAX_NAMED = 5


def load_start(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    strict: bool,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    slices: Mapping[str, Slice] | None = None,
) -> int:
    """Copies what fits into the model, in place; gives the number of tensors that it took.

    strict: names must agree, but for those that the patterns allow. A tensor of another shape
    counts as missing if its name may be missing, else it is an error; other floating-point types
    are converted. slices: which rows of a parameter the model has.

    Raises StateMismatch, naming what differs, also if nothing at all fits.
    """
    own, slices = model_tensors(model), slices or {}
    allowed = tuple(allow_missing) if strict else ("*",)
    missing = [name for name in own if name not in tensors]
    problems = [f"{name}: not in the file" for name in missing if not _matches(name, allowed)]
    if strict:
        problems += [
            f"{name}: in the file, but not in the model"
            for name in tensors
            if name not in own and not _matches(name, allow_unexpected)
        ]
    taken: dict[str, Tensor] = {}
    for name, stored in tensors.items():
        if name not in own:
            continue
        slice_ = slices.get(name)
        problem = _difference(own[name], stored, None if slice_ is None else slice_.shape)
        if problem is None and slice_ is not None:
            taken[name] = stored[slice_.first : slice_.first + slice_.rows]
        elif problem is None:
            taken[name] = stored
        elif not _matches(name, allow_missing):
            problems.append(f"{name}: {problem}")
    if problems:
        shown = "; ".join(problems[:MAX_NAMED])
        more = f"; and {len(problems) - MAX_NAMED} more" * (len(problems) > MAX_NAMED)
        raise StateMismatch(
            f"{shown}{more}; name what may differ in start.allow_missing and "
            "start.allow_unexpected, or change the model"
        )
    if not taken:
        raise StateMismatch(
            f"none of its {len(tensors)} tensors is one of the model's {len(own)}: training would "
            f"start from scratch; it holds {', '.join(sorted(tensors)[:MAX_NAMED]) or 'nothing'}, "
            f"the model {', '.join(list(own)[:MAX_NAMED])}"
        )
    with torch.no_grad():
        for name, stored in taken.items():
            own[name].copy_(stored)
    return len(taken)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _difference(own: Tensor, stored: Tensor, shape: tuple[int, ...] | None) -> str | None:
    """shape: of what `own` is a slice of; none: it is whole."""
    wanted = tuple(own.shape) if shape is None else shape
    if tuple(stored.shape) != wanted:
        return f"the file has {tuple(stored.shape)}, the model wants {wanted}"
    if stored.dtype != own.dtype and not (stored.is_floating_point() and own.is_floating_point()):
        return f"the file has {stored.dtype}, the model wants {own.dtype}"
    return None
