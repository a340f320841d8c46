"""Training state to tensors and plain JSON, and back. No pickle; names are checked, not trusted.

model       the module's `state_dict`: what plain torch loads
optimizer   its tensors, named `state/<parameter>/<key>`
ema         the average of the weights, under the model's names
companions  tensors of loss and step, named `<companion>/<key>`; what else they have, in a document
document    everything else: its numbers, the options of its groups, the count of updates
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from epochal.data.errors import CorruptObject, StateMismatch, out_of_memory
from epochal.engine.model.companions import Companions
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.state import TrainingState

_NOT_OPTIONS = frozenset({"params", "param_names", "lr", "initial_lr"})
"""Of a parameter group: what is not stored, since the config gives it."""
_OPTIMIZERS = frozenset({"state", "group", ""})
"""First names of what an optimizer and a scaler hold."""
_TENSOR, _FLOAT, _TUPLE, _MAPPING = "$tensor", "$float", "$tuple", "$mapping"


@dataclass(frozen=True)
class StateParts:
    """A state in parts. document: plain JSON. ema: empty where no average is kept.

    companions, companions_document: empty where loss and step have no state.
    """

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    document: dict[str, Any]
    ema: dict[str, Tensor] = field(default_factory=dict)
    companions: dict[str, Tensor] = field(default_factory=dict)
    companions_document: dict[str, Any] = field(default_factory=dict)


def load_tensors(path: Path, *, device: str) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises CorruptObject if it is none, Unavailable if memory runs out: of no file is more mapped
    than it has.
    """
    try:
        tensors = dict(load_file(path, device=device))
    except MemoryError as error:
        raise out_of_memory(path) from error
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise CorruptObject(f"{path} is no safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise CorruptObject(f"{path}: tensor {name!r:.100} has flags that are neither 0 nor 1")
    return tensors


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The module's `state_dict`. Raises StateMismatch for what is no tensor."""
    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise StateMismatch(
                f"model: {name} of its state_dict is a {type(value).__name__}, and only tensors "
                "can be stored; let get_extra_state() return a tensor"
            )
        tensors[name] = value
    return tensors


def split_state(state: TrainingState) -> StateParts:
    """The state in parts; tensors are those of the state, not copies.

    Raises StateMismatch for what cannot be stored.
    """
    tensors: dict[str, Tensor] = {}
    slots: dict[str, Any] = {}
    named = state.named_parameters()
    known = {id(parameter): name for name, parameter in named.items()}
    for key, values in state.optimizer.state.items():
        name = known[id(key)] if isinstance(key, Tensor) else f"/{key}"
        slots[name] = _encode(dict(values), f"state/{name}", tensors)
    groups = [
        {
            "parameters": list(names),
            "options": {
                option: _encode(value, f"group/{index}/{option}", tensors)
                for option, value in group.items()
                if option not in _NOT_OPTIONS
            },
        }
        for index, (group, names) in enumerate(
            zip(state.optimizer.param_groups, state.parameter_names, strict=True)
        )
    ]
    document = {
        "updates_done": state.updates_done,
        "updates_skipped": state.updates_skipped,
        "scaler": None if state.scaler is None else _encode(state.scaler.state_dict(), "", tensors),
        "slots": slots,
        "groups": groups,
    }
    beside: dict[str, Tensor] = {}
    return StateParts(
        model=model_tensors(state.model),
        optimizer=tensors,
        document=document,
        ema={} if state.ema is None else dict(state.ema.tensors),
        companions_document={
            name: _encode(companion.state_dict(), name, beside)
            for name, companion in state.companions.items()
        },
        companions=beside,
    )


def load_companions(
    companions: Companions, tensors: Mapping[str, Tensor], document: Mapping[str, Any]
) -> None:
    """Puts stored state into loss and step. Raises StateMismatch or CorruptObject."""
    if document.keys() != companions.keys():
        raise StateMismatch(
            f"loss, step: state is stored of {', '.join(document) or 'none'}, found "
            f"{', '.join(companions) or 'none'} that has some; was loss or step changed?"
        )
    try:
        states = {name: _decode(document[name], tensors) for name in companions}
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorruptObject(f"the document of loss and step lacks or misstates {error}") from error
    for name, companion in companions.items():
        if isinstance(companion.part, nn.Module):
            _check_companion(name, companion.state_dict(), states[name])
        try:
            companion.load_state_dict(states[name])
        except Exception as error:  # a user's load_state_dict may raise anything
            raise StateMismatch(
                f"{name}: its load_state_dict() refuses what its state_dict() gave: "
                f"{type(error).__name__}: {error}"
            ) from error


def _check_companion(name: str, own: Mapping[str, Any], stored: Any) -> None:
    if not isinstance(stored, dict):
        raise CorruptObject(f"{name}: stored as a {type(stored).__name__}, no module's state")
    try:
        check_tensors(
            {key: value for key, value in own.items() if isinstance(value, Tensor)},
            {key: value for key, value in stored.items() if isinstance(value, Tensor)},
        )
    except StateMismatch as error:
        raise StateMismatch(f"{name}: {error}") from None


def load_model_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies the tensors into the module. Raises StateMismatch, naming each difference."""
    check_tensors(model_tensors(model), tensors)
    model.load_state_dict(dict(tensors), strict=True)


def load_average(average: WeightAverage, tensors: Mapping[str, Tensor]) -> None:
    """Copies the tensors into the average. Raises StateMismatch, naming each difference."""
    check_tensors(average.tensors, tensors)
    for name, tensor in tensors.items():
        average.tensors[name].copy_(tensor)


def check_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Raises StateMismatch if names, shapes or types of `tensors` are not those of `own`."""
    problems = [f"{name}: not stored" for name in own if name not in tensors]
    problems += [f"{name}: stored, but not in the model" for name in tensors if name not in own]
    for name, tensor in own.items():
        stored = tensors.get(name)
        if stored is None:
            continue
        if stored.shape != tensor.shape:
            problems.append(
                f"{name}: stored {tuple(stored.shape)}, the model wants {tuple(tensor.shape)}"
            )
        elif stored.dtype != tensor.dtype:
            problems.append(f"{name}: stored {stored.dtype}, the model wants {tensor.dtype}")
    if problems:
        shown = "; ".join(problems[:5]) + ("; …" if len(problems) > 5 else "")  # noqa: PLR2004 - a short message
        raise StateMismatch(f"{shown}; was the model or model.args changed?")


def load_state(state: TrainingState, parts: StateParts) -> None:
    """Puts all parts into the live state.

    Raises StateMismatch if they are of another model or optimizer, CorruptObject if the document is
    none of a state; the live state is then of no use.
    """
    load_model_tensors(state.model, parts.model)
    if state.ema is not None:
        load_average(state.ema, parts.ema)
    document, named = parts.document, state.named_parameters()
    try:
        groups, slots = document["groups"], document["slots"]
        stored = [list(group["parameters"]) for group in groups]
        options = [dict(group["options"]) for group in groups]
        updates_done = _count(document["updates_done"])
        updates_skipped = _count(document["updates_skipped"])
        scaler = _scaler(_decode(document["scaler"], parts.optimizer))
        decoded = {name: _decode(values, parts.optimizer) for name, values in slots.items()}
        decoded_options = [_decode(encoded, parts.optimizer) for encoded in options]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorruptObject(f"the optimizer's document lacks or misstates {error}") from error
    if (
        any(_NOT_OPTIONS & encoded.keys() for encoded in options)
        or not all(isinstance(slot, dict) for slot in decoded.values())
        or not all(isinstance(name, str) for names in stored for name in names)
    ):
        raise CorruptObject("the optimizer's document holds what no optimizer's state is")
    wanted = [list(names) for names in state.parameter_names]
    if stored != wanted:
        raise StateMismatch(
            f"optimizer: its groups held {_shown(stored)}, they are now {_shown(wanted)}; was the "
            "model or the optimizer changed?"
        )
    state.optimizer.state.clear()
    for name, values in decoded.items():
        if name.startswith("/"):
            state.optimizer.state[name[1:]] = values
            continue
        if name not in named:
            raise StateMismatch(f"optimizer: stored for {name!r}, which the model does not have")
        parameter = named[name]
        group = state.optimizer.param_groups[_group_of(state, name)]
        state.optimizer.state[parameter] = {
            key: _placed(value, parameter, key=key, group=group, name=name)
            for key, value in values.items()
        }
    for group, values in zip(state.optimizer.param_groups, decoded_options, strict=True):
        group.update(values)
    _load_scaler(state, scaler)
    load_companions(state.companions, parts.companions, parts.companions_document)
    state.updates_done, state.updates_skipped = updates_done, updates_skipped
    state.set_rate_factor(1.0)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        message = f"updates_done: {value!r:.80} is no count"
        raise ValueError(message)
    return value


def _scaler(values: Any) -> dict[str, Any] | None:
    """What a GradScaler's `state_dict` gave, or None. Raises ValueError for anything else."""
    if values is None:
        return None
    kinds = {
        name: type(number) for name, number in torch.amp.GradScaler("cpu").state_dict().items()
    }
    if {name: type(number) for name, number in values.items()} != kinds or not all(
        math.isfinite(number) and number >= 0 for number in values.values()
    ):
        message = f"the scale of the loss: {values!r:.200}"
        raise ValueError(message)
    return dict(values)


def _load_scaler(state: TrainingState, values: dict[str, Any] | None) -> None:
    if (values is None) != (state.scaler is None):
        raise StateMismatch("scaler: stored and configured precision differ; see precision.dtype")
    if state.scaler is not None and values is not None:
        state.scaler.load_state_dict(values)


def _group_of(state: TrainingState, name: str) -> int:
    return next(index for index, names in enumerate(state.parameter_names) if name in names)


def _placed(value: Any, parameter: Tensor, *, key: str, group: Mapping[str, Any], name: str) -> Any:
    """A slot on its parameter's device; `step` stays on the host, as torch keeps it."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim and value.numel() == parameter.numel() and value.shape != parameter.shape:
        raise StateMismatch(
            f"optimizer: {key} of {name} has shape {tuple(value.shape)}, the parameter "
            f"{tuple(parameter.shape)}"
        )
    on_host = key == "step" and not (group.get("capturable") or group.get("fused"))
    return value if on_host else value.to(parameter.device)


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as plain JSON; its tensors go to `tensors` under `place`."""
    if isinstance(value, Tensor):
        tensors[place] = value
        return {_TENSOR: place}
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {_TUPLE: _encode(list(value), place, tensors)}
    if isinstance(value, list):
        return [_encode(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = {key: _encode(item, f"{place}/{key}", tensors) for key, item in value.items()}
        return {_MAPPING: items}
    owner = place.partition("/")[0]
    raise StateMismatch(
        f"{'optimizer' if owner in _OPTIMIZERS else owner}: {place} is a {type(value).__name__}, "
        "which cannot be stored without pickle; expected tensors, numbers, texts, and lists or "
        "dicts of them"
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, Mapping):
        return value
    # Every mapping that `_encode` writes has one key, its kind; groups' options are mappings of
    # encoded values.
    single: tuple[Any, Any] = next(iter(value.items())) if len(value) == 1 else (None, None)
    kind, inner = single
    match kind:
        case "$tensor":
            decoded: Any = tensors[inner]
        case "$float":
            decoded = float(inner)
        case "$tuple":
            decoded = tuple(_decode(inner, tensors))
        case _:
            items = inner if kind == _MAPPING else value
            decoded = {key: _decode(item, tensors) for key, item in items.items()}
    return decoded


def _shown(groups: list[list[str]]) -> str:
    text = " | ".join(", ".join(names) for names in groups)
    return text if len(text) <= 200 else f"{text[:199]}…"  # noqa: PLR2004 - a line
