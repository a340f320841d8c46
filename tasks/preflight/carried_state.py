"""State that no checkpoint holds, found by trying the step three times on the same samples.

What differs after the third pass from what it was after the first goes on from step to step: a
counter, a running mean, a generator. The second pass is made with doubled weights, so that an
average of the weights, which a teacher is, goes on too. A cache, which the same samples and weights
fill alike, does not. Torch is imported here: the checks before the start are no part of `plan`.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from epochal.engine.loop.restored import (
    MAX_DEPTH,
    MAX_ITEMS,
    attributes_of,
    is_plain_object,
    owners_of,
    restored,
)
from epochal.tasks.user_code.components import Components

MAX_ELEMENTS = 1 << 24  # of a tensor outside of state_dict that is compared

_PLAIN = (bool, int, float, str, type(None))


@contextmanager
def untouched(components: Components) -> Iterator[None]:
    """What the block does to weights, buffers, counters and generators of the parts is undone."""
    model, loss = components.state.model, components.loss.made
    with restored(model, components.step, loss=loss, everything=True):
        yield


def uncarried(components: Components, step: Callable[[], Any]) -> dict[str, str]:
    """Name → what to do, of what goes on from step to step and is in no checkpoint.

    step: one training step on the same samples each time, without an update.
    """
    step()
    first, extra = dict(_values(components)), extra_states(components)
    parameters: list[Tensor] = [*components.state.named_parameters().values()]
    weights = [one for one in parameters if _is_number(one)]
    with _doubled(weights), suppress(Exception):  # a step may refuse such weights
        step()
    step()
    second = dict(_values(components))
    for owner, state in extra:
        owner.set_extra_state(state)
    again = dict(_values(components)) if extra else second
    return {
        name: _remedy(value)
        for name, value in second.items()
        if name in first
        and not equal(first[name], value)
        and not (name in again and equal(first[name], again[name]))  # the extra state carries it
    }


def changed_in_evaluation(components: Components, step: Callable[[], Any]) -> list[str]:
    """Name of each weight that a pass in evaluation mode changes, as no validation puts it back.

    step: the forward pass of a step on the same samples each time. Weights of model, loss and step.
    """
    model = components.state.model
    was_training = model.training
    before = dict(_weights(components))
    kept = {name: (id(one), one.data_ptr(), _sums(one)) for name, one in before.items()}
    model.eval()
    try:
        with torch.no_grad():
            step()
    finally:
        model.train(was_training)
    return [
        name
        for name, one in _weights(components)
        if kept.get(name) != (id(one), one.data_ptr(), _sums(one))
    ]


def _weights(components: Components) -> Iterator[tuple[str, nn.Parameter]]:
    for path, owner in _owners(components):
        if isinstance(owner, nn.Module):
            for name, weight in owner.named_parameters(recurse=False):
                yield f"{path}.{name}", weight


def _sums(weight: Tensor) -> tuple[int, str, str]:
    """What tells a changed tensor without a copy of it: the count of changes, and two sums."""
    with torch.no_grad():
        magnitudes = weight.detach().abs()
        plain = weight.detach() if _is_number(weight) and not weight.is_complex() else magnitudes
        sums = repr(float(plain.sum())), repr(float(magnitudes.sum()))  # NaN is equal to itself
        return (weight._version, *sums)  # noqa: SLF001 - no public way


def extra_states(components: Components) -> list[tuple[nn.Module, Any]]:
    """The modules that give state of their own to `state_dict`, and a copy of it."""
    return [
        (owner, copy.deepcopy(owner.get_extra_state()))
        for _, owner in _owners(components)
        if isinstance(owner, nn.Module)
        and type(owner).get_extra_state is not nn.Module.get_extra_state
    ]


@contextmanager
def _doubled(weights: list[Tensor]) -> Iterator[None]:
    """Twice and half of a floating-point number are exact: afterwards all bits are as before."""
    with torch.no_grad():
        torch._foreach_mul_(weights, 2.0)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_mul_(weights, 0.5)


def _is_number(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def untrained_parameters(components: Components, step: Callable[[], Any]) -> list[str]:
    """Name of each parameter that a step's loss depends on and that nothing trains or stores.

    It has one if a step or loss which is no module holds it: an attribute, a bound argument, an
    enclosed variable. step: as for `uncarried`.
    """
    state = components.state
    known = {id(one) for one in (*state.model.parameters(), *state.named_parameters().values())}
    leaves = [one for one in _leaves(step().loss_B) if id(one) not in known]
    if not leaves:
        return []
    held: dict[str, nn.Parameter] = {}
    for name, part in (("loss", components.loss.made), ("step", components.step)):
        if isinstance(part, nn.Module):
            continue
        for place, value in _held(part):
            if isinstance(value, nn.Module):
                held |= {f"{name}.{place}.{n}": one for n, one in value.named_parameters()}
            elif isinstance(value, nn.Parameter):
                held[f"{name}.{place}"] = value
    names = {id(one): name for name, one in held.items()}
    return [names.get(id(one), f"one of shape {tuple(one.shape)}") for one in leaves]


def _leaves(loss: Tensor) -> list[Tensor]:
    """The tensors that a loss would give a gradient, wherever they are held."""
    waiting, seen, leaves = [loss.grad_fn], set[Any](), list[Tensor]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)  # of the nodes that add to a `.grad`
        if isinstance(variable, Tensor):
            leaves.append(variable)
        waiting += [following for following, _ in node.next_functions]
    return leaves


def _held(part: Any) -> Iterator[tuple[str, Any]]:
    """Name → what an object holds, a `partial` has bound or a function has enclosed."""
    if isinstance(part, partial):
        yield from _held(part.func)
        yield from ((str(place), value) for place, value in enumerate(part.args))
        yield from part.keywords.items()
    owner = getattr(part, "__self__", None)
    if owner is not None and hasattr(owner, "__dict__"):
        yield from vars(owner).items()
    names = getattr(getattr(part, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, getattr(part, "__closure__", None) or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:
            continue  # not yet assigned
    yield from getattr(part, "__dict__", {}).items()


def _owners(components: Components) -> Iterator[tuple[str, Any]]:
    """Name → module or object that may hold state: of the model, the loss and the step."""
    model, loss = components.state.model, components.loss.made
    yield from owners_of({"model": model, "loss": loss, "step": components.step})


def _values(components: Components) -> Iterator[tuple[str, Any]]:
    """Name → a copy of each value that no checkpoint holds, and that can be compared."""
    carried = {id(one.part) for one in components.state.companions.values()}
    unstored = _unstored_parameters(components)
    for path, owner in _owners(components):
        if isinstance(owner, nn.Module):
            for name, tensor in _unstored_tensors(owner, unstored):
                yield f"{path}.{name}", tensor
        elif id(owner) in carried:
            continue  # it says itself what its state is
        for name, value in list(attributes_of(owner).items()):
            yield f"{path}.{name}", _copied(value)
    for name, part in (("loss", components.loss.made), ("step", components.step)):
        if not isinstance(part, nn.Module) and id(part) not in carried:
            for place, value in _held(part):
                yield f"{name}.{place}", _copied(value)


def _unstored_tensors(owner: nn.Module, unstored: Container[int]) -> Iterator[tuple[str, _Buffer]]:
    left_out = owner._non_persistent_buffers_set  # noqa: SLF001 - no public way
    for name, buffer in owner.named_buffers(recurse=False):
        if name in left_out:
            yield name, _Buffer(buffer.detach().clone())
    for name, weight in owner.named_parameters(recurse=False):
        if id(weight) in unstored and weight.numel() <= MAX_ELEMENTS:
            yield name, _Fixed(weight.detach().clone())


def _unstored_parameters(components: Components) -> set[int]:
    """Ids of the parameters of loss and step that take no gradient: they are as they were built."""
    own = {id(one) for one in components.state.model.parameters()}
    parts = (components.loss.made, components.step)
    modules = [part for part in parts if isinstance(part, nn.Module)]
    weights = [weight for module in modules for weight in module.parameters()]
    return {id(weight) for weight in weights if not weight.requires_grad} - own


class _Buffer:
    """A buffer that `state_dict` leaves out."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Fixed(_Buffer):
    """A parameter that takes no gradient and is not stored."""


class _Generator:
    """A generator of random numbers, by its state."""

    def __init__(self, state: Any) -> None:
        self.state = state


def _copied(value: Any, depth: int = 0) -> Any:
    """A copy that later changes do not reach; of what is not looked into, nothing."""
    copied: Any = None
    if depth > MAX_DEPTH:  # or inside itself
        return None
    if isinstance(value, _PLAIN):
        copied = value
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        copied = value.detach().clone() if value.numel() <= MAX_ELEMENTS else None
    elif isinstance(value, np.ndarray):
        copied = value.copy() if value.size <= MAX_ELEMENTS and value.dtype != object else None
    elif isinstance(value, list | tuple | deque) and len(value) <= MAX_ITEMS:
        copied = [_copied(item, depth + 1) for item in value]
    elif isinstance(value, Mapping) and len(value) <= MAX_ITEMS:
        copied = {str(key): _copied(item, depth + 1) for key, item in value.items()}
    elif isinstance(value, nn.Module):  # one that its owner does not register
        tensors = {**value.state_dict(), **dict(value.named_buffers())}
        copied = {name: _copied(tensor.detach()) for name, tensor in tensors.items()}
    elif isinstance(value, set | frozenset) and len(value) <= MAX_ITEMS:
        copied = sorted(map(repr, value))
    elif is_plain_object(value):
        copied = {name: _copied(one, depth + 1) for name, one in list(vars(value).items())}
    else:
        copied = _of_generator(value)
    return copied


def _of_generator(value: Any) -> _Generator | None:
    if isinstance(value, torch.Generator):
        return _Generator(value.get_state())
    if isinstance(value, np.random.Generator):
        return _Generator(repr(value.bit_generator.state))
    if isinstance(value, np.random.RandomState):
        return _Generator(repr(value.get_state()))
    return _Generator(value.getstate()) if isinstance(value, random.Random) else None


def _known(value: Any) -> Any:
    if isinstance(value, _Buffer):
        return value.tensor
    return value.state if isinstance(value, _Generator) else value


def equal(one: Any, other: Any) -> bool:
    """Whether two values of state are the same; NaN is no change."""
    one, other = _known(one), _known(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other or one != one)  # noqa: PLR0124 - likewise


def _remedy(value: Any) -> str:
    if isinstance(value, _Fixed):
        return "parameters without gradients are not stored: make it a buffer (register_buffer)"
    if isinstance(value, _Buffer):
        return "register it as a persistent buffer"
    if isinstance(value, _Generator):
        return "draw from the global generators, which are seeded anew for every step"
    return (
        "keep it in a buffer (register_buffer) of the model or of a loss that is a module, or give "
        "its owner state_dict() and load_state_dict()"
    )
