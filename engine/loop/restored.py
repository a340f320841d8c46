"""What model, loss and step hold is put back after a pass that must leave no trace.

A validation, a scoring or a trial may change buffers and counters. A run that goes on has changed
them, one that starts again from its checkpoint has not: so what a checkpoint holds may not stay so.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epochal.engine.model.companions import companions_of

MAX_DEPTH = 6  # of objects, lists and mappings inside each other
MAX_ITEMS = 1000  # of a list or dict that is looked into

_NOT_USERS = frozenset(
    {"builtins", "torch", "numpy", "epochal", "collections", "random", "threading"}
)
_MODULES_OWN = frozenset({*vars(nn.Module()), "training"})


@contextmanager
def restored(
    model: nn.Module, step: Any, *, loss: Any = None, everything: bool = False
) -> Iterator[None]:
    """What the block does to the buffers, and to the `state_dict` of loss and step, is undone.

    That is what a checkpoint holds, but for the weights, which are taken to stay as they are. loss:
    None for the one that the default step has. everything: weights, whose copy may be large,
    counters, lists, generators, whatever is found to change; without it what was counted or
    collected stays, for whoever reads it.
    """
    loss = getattr(step, "made_loss", None) if loss is None else loss
    owners = [owner for _, owner in owners_of({"model": model, "loss": loss, "step": step})]
    if everything:
        kept = [*map(_kept, owners), *map(_kept_cells, (loss, step))]
    else:
        kept = [_kept_buffers(owner) for owner in owners if isinstance(owner, nn.Module)]
    states = [
        (companion, copy.deepcopy(companion.state_dict()))
        for companion in companions_of(loss=loss, step=step).values()
        if not isinstance(companion.part, nn.Module)
    ]
    try:
        yield
    finally:
        for restore in kept:
            restore()
        for companion, state in states:
            companion.load_state_dict(state)


def owners_of(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name → module or object that may hold state, of `model`, `loss` and `step`."""
    seen: set[int] = set()
    owners: dict[str, Any]
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            inner = dict(part.named_modules())
            owners = {f"{name}.{path}" if path else name: one for path, one in inner.items()}
        else:
            owners = {name: part.func if isinstance(part, partial) else part}
        for path, owner in owners.items():
            if id(owner) not in seen and hasattr(owner, "__dict__"):
                seen.add(id(owner))
                yield path, owner


def attributes_of(owner: Any) -> dict[str, Any]:
    """Name → attribute of a module or an object, without what torch itself keeps in a module."""
    if isinstance(owner, nn.Module):
        return {name: one for name, one in vars(owner).items() if name not in _MODULES_OWN}
    return vars(owner) if not isinstance(owner, type) else {}


def is_plain_object(value: Any) -> bool:
    """Whether it is of a class of the user's own, such as a helper that counts."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type | ModuleType | nn.Module | nn.Parameter)
        and not callable(getattr(value, "__get__", None))  # functions and methods
        and kind.__module__.partition(".")[0] not in _NOT_USERS
    )


def _kept(owner: Any, depth: int = 0) -> Callable[[], None]:
    """Gives a function that puts back what the owner holds now."""
    undo = partial(_undo, depth=depth)
    attributes = dict(attributes_of(owner))
    contents = [one for value in attributes.values() if (one := undo(value))]
    if isinstance(owner, nn.Module):
        contents.append(_kept_buffers(owner))
        contents += [_undo_weight(one) for one in owner.parameters(recurse=False)]

    def restore() -> None:
        for one in contents:
            one()
        for name in attributes_of(owner).keys() - attributes.keys():
            del vars(owner)[name]
        vars(owner).update(attributes)

    return restore


def _kept_buffers(owner: nn.Module) -> Callable[[], None]:
    """Gives a function that puts back what is in the module's own buffers now."""
    buffers = dict(owner.named_buffers(recurse=False))
    contents = [partial(_fill, one, one.detach().clone()) for one in buffers.values()]

    def restore() -> None:
        _each(contents)
        for name, buffer in buffers.items():
            setattr(owner, name, buffer)

    return restore


def _undo(value: Any, depth: int = 0) -> Callable[[], Any] | None:
    """A function that gives a value its present content again; None where none can change."""
    undo: Callable[[], Any] | None = None
    inside = partial(_undo, depth=depth + 1)
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        undo = partial(_fill, value, value.detach().clone())
    elif isinstance(value, np.ndarray):
        undo = partial(np.copyto, value, value.copy())
    elif isinstance(value, list | deque | dict | set):
        items = value.values() if isinstance(value, dict) else value
        within = list(items) if len(value) <= MAX_ITEMS else []
        inner = [one for item in within if (one := inside(item)) is not None]
        undo = partial(_refill, value, value.copy(), inner)
    elif is_plain_object(value):
        fields = dict(vars(value))
        inner = [one for item in fields.values() if (one := inside(item)) is not None]
        undo = partial(_refill, vars(value), fields, inner)
    elif isinstance(value, nn.Module):  # one that its owner does not register
        held = [_kept(one, depth + 1) for one in value.modules()]
        undo = partial(_each, held)
    else:
        undo = _undo_draws(value)
    return undo


def _undo_draws(value: Any) -> Callable[[], Any] | None:
    if isinstance(value, torch.Generator | np.random.RandomState):
        set_state: Callable[[Any], Any] = value.set_state
        return partial(set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return partial(value.setstate, value.getstate()) if isinstance(value, random.Random) else None


def _undo_weight(weight: nn.Parameter) -> Callable[[], None]:
    data = weight.data
    content = data.clone()

    def restore() -> None:
        weight.data = data  # code may have set another tensor there
        _fill(data, content)

    return restore


def _fill(tensor: Tensor, content: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(content)


def _each(undo: Sequence[Callable[[], Any]]) -> None:
    for one in undo:
        one()


def _kept_cells(part: Any) -> Callable[[], None]:
    """Gives a function that puts back what a function has enclosed."""
    undo: list[Callable[[], Any]] = []
    for cell in getattr(part, "__closure__", None) or ():
        with suppress(ValueError):  # not yet assigned
            content = cell.cell_contents
            undo.append(partial(setattr, cell, "cell_contents", content))
            if (inner := _undo(content)) is not None:
                undo.append(inner)
    return partial(_each, undo)


def _refill(value: Any, content: Any, inner: Sequence[Callable[[], Any]] = ()) -> None:
    """Empty for a moment only where it must be: another thread may look into it."""
    _each(inner)
    if isinstance(value, list):
        value[:] = content
        return
    if isinstance(value, dict) and list(value) == list(content):
        value.update(content)
        return
    value.clear()
    if isinstance(value, dict | set):
        value.update(content)
    else:
        value.extend(content)
