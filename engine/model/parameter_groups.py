"""Which options the optimizer has for which parameters: groups by pattern, kind and layer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from epochal.data.errors import TargetError
from epochal.engine.config.optimizer import OptimizerConfig, ParameterGroup

BASE = "base"
"""What parameters are called that no pattern and no layer names."""
MAX_NAMED = 12
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_NORM = re.compile(r"Norm(?![a-z])")  # of a user's class: `MyRMSNorm2d`, not `NormalHead`


@dataclass(frozen=True)
class ParameterGroups:
    """What an optimizer is given. rate_names: of each group, what gives it its rate."""

    groups: list[dict[str, Any]]
    rate_names: tuple[str, ...]


def make_groups(
    model: nn.Module,
    config: OptimizerConfig,
    *,
    beside: Mapping[str, nn.Parameter] = MappingProxyType({}),
) -> ParameterGroups:
    """The parameters that require a gradient, in groups of equal options, in the model's order.

    beside: what is trained with the model's, after them; of no layer.
    Each group has `params`, `param_names`, `lr` and what differs from the optimizer's args.
    Raises TargetError for a pattern that matches nothing, or layers that are none.
    """
    named = trainable(model)
    named |= {name: parameter for name, parameter in beside.items() if parameter.requires_grad}
    group_of = _matched(named, config.groups)
    layer_of = {} if config.layer_decay is None else layers(model)
    last = max((layer.place for layer in layer_of.values()), default=0)
    undecayed = _undecayed(model, config)
    groups: dict[str, dict[str, Any]] = {}
    rate_names: list[str] = []
    for name, parameter in named.items():
        group, layer = group_of.get(name), layer_of.get(name)
        options: dict[str, Any] = {"lr": config.rate}
        label = BASE if group is None else group.match
        if layer is not None and config.layer_decay is not None:
            options["lr"] *= config.layer_decay ** (last - layer.place)
            label = layer.label if group is None else f"{group.match}/{layer.label}"
        if name in undecayed:
            options["weight_decay"] = 0.0
        if group is not None:
            options["lr"] *= group.lr_factor
            options |= group.options
            label = group.match if "lr" in group.options else label
        place = json.dumps([label, options], sort_keys=True)
        if place not in groups:
            groups[place] = {"params": [], "param_names": [], **options}
            rate_names.append(label)
        groups[place]["params"].append(parameter)
        groups[place]["param_names"].append(name)
    return ParameterGroups(list(groups.values()), tuple(rate_names))


def check_options(optimizer: Optimizer, config: OptimizerConfig) -> None:
    """Raises TargetError if options are given that the optimizer does not have.

    torch itself takes any option into a group, and never looks at one that it does not know.
    """
    kind, known = type(optimizer).__name__, sorted(optimizer.defaults)
    asked = [
        (f"optimizer.groups: {option!r} of {group.match!r}", option)
        for group in config.groups
        for option in group.options
    ]
    if config.no_decay:
        asked.append((f"optimizer.no_decay: found {list(config.no_decay)}", "weight_decay"))
    for place, option in asked:
        if option not in optimizer.defaults:
            raise TargetError(
                f"{place}; {kind} has no option {option!r}, it has {', '.join(known)}"
            )


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter of all that require a gradient."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def matching(names: Iterable[str], pattern: str, *, field: str) -> list[str]:
    """The names that the pattern matches. Raises TargetError, listing names, if there are none."""
    listed = list(names)
    matched = [name for name in listed if fnmatchcase(name, pattern)]
    if not matched:
        raise TargetError(
            f"{field}: {pattern!r} matches no parameter that trains; their names are "
            f"{_shown(listed)}"
        )
    return matched


def _matched(
    named: Mapping[str, nn.Parameter], groups: Iterable[ParameterGroup]
) -> dict[str, ParameterGroup]:
    taken: dict[str, ParameterGroup] = {}
    for group in groups:
        matched = matching(named, group.match, field="optimizer.groups")
        left = [name for name in matched if name not in taken]
        if not left:
            raise TargetError(
                f"optimizer.groups: {group.match!r} matches only what groups before it have "
                f"({_shown(matched)}); put it before them"
            )
        taken |= dict.fromkeys(left, group)
    return taken


def _undecayed(model: nn.Module, config: OptimizerConfig) -> set[str]:
    names: set[str] = set()
    for prefix, module in model.named_modules():
        is_norm = isinstance(module, _NORMS) or _NORM.search(type(module).__name__)
        for name, _ in module.named_parameters(recurse=False):
            # `bias`, `in_proj_bias` of attention, `bias_ih_l0` of recurrent layers
            is_bias = name.startswith("bias") or name.endswith("bias")
            if (is_norm and "norms" in config.no_decay) or (
                is_bias and "biases" in config.no_decay
            ):
                names.add(f"{prefix}.{name}" if prefix else name)
    return names


@dataclass(frozen=True, order=True)
class Layer:
    """A layer for `layer_decay`. place: from the first, 0, to the last."""

    place: int
    label: str


def layers(model: nn.Module) -> dict[str, Layer]:
    """Name of each parameter that trains → its layer. Raises TargetError.

    The model's `layer_groups()`, if it has one, gives them from the first to the last: each a
    module, a parameter or a list of these. Else its `group_matcher()`, as timm's models have one,
    says which names belong to which layer. Else they are its modules in the order in which they
    were made: numbered ones (of Sequential, ModuleList) one each, others whole unless there are
    numbered ones inside, and the parameters that a module holds beside those one layer.
    """
    own = getattr(model, "layer_groups", None)
    if own is not None:
        return _stated_layers(model, own())
    matcher = getattr(model, "group_matcher", None)
    if matcher is not None:
        return _matched_layers(model, matcher)
    divided = _divided(model)
    of_label: dict[str, Layer] = {}
    places: dict[str, Layer] = {}
    for name in trainable(model):
        label = _layer_label(name, divided)
        places[name] = of_label.setdefault(label, Layer(len(of_label), label))
    return places


_PREVIOUS = 99999.0
"""As the last number of a group: its parameters belong to the layer before it (timm's form)."""
_UNMATCHED = (math.inf,)  # the layers behind all others, such as the head


def _matched_layers(model: nn.Module, matcher: Any) -> dict[str, Layer]:
    """The layers that `group_matcher(coarse=False)` tells apart, all parameters counted.

    It gives {group: pattern, or a list of (pattern, suffix)}, or a function of a parameter's name;
    a parameter's place are the number of its group, the numbers that the pattern catches, and the
    suffix. So `layer_decay` means what it means in timm's `param_groups_layer_decay`.
    """
    try:
        rule = matcher(coarse=False)
        place_of = rule if callable(rule) else partial(_place, compiled=_compiled(rule))
        found = {
            name: tuple(map(float, _as_tuple(place_of(name))))
            for name, _ in model.named_parameters()
        }
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise TargetError(
            f"model: its group_matcher() is not of timm's form ({type(error).__name__}: {error}); "
            "expected {group: pattern, or [(pattern, suffix), …]}; or give the model a method "
            "layer_groups()"
        ) from error
    number = -1
    of_place: dict[tuple[float, ...], Layer] = {}
    for place in sorted(set(found.values())):
        number += number < 0 or place[-1] != _PREVIOUS
        of_place[place] = Layer(number, f"layer_{number}")
    return {name: of_place[found[name]] for name in trainable(model)}


_Compiled = list[tuple[re.Pattern[str], int, tuple[float, ...]]]


def _compiled(rule: Mapping[str, Any]) -> _Compiled:
    compiled: _Compiled = []
    for number, patterns in enumerate(rule.values()):
        if isinstance(patterns, str):
            compiled.append((re.compile(patterns), number, ()))
        elif patterns is not None:
            compiled += [
                (re.compile(pattern), number, () if suffix is None else tuple(suffix))
                for pattern, suffix in patterns
            ]
    return compiled


def _place(name: str, *, compiled: _Compiled) -> tuple[float, ...]:
    for pattern, number, suffix in compiled:
        if match := pattern.match(name):
            caught = [float(group) for group in match.groups() if group is not None]
            return (number, *caught, *suffix)
    return _UNMATCHED


def _as_tuple(place: Any) -> tuple[Any, ...]:
    return tuple(place) if isinstance(place, Iterable) else (place,)


def _divided(model: nn.Module) -> set[str]:
    """Paths of the modules that have numbered ones somewhere inside."""
    prefixes: set[str] = set()
    for path, _ in model.named_modules():
        parts = path.split(".")
        for depth, part in enumerate(parts):
            if part.isdigit():
                prefixes.update(".".join(parts[:length]) for length in range(depth + 1))
    return prefixes


def _layer_label(name: str, divided: set[str]) -> str:
    """The path of the module that is the parameter's layer; of a lone parameter its holder's."""
    parts = name.split(".")[:-1]
    length = 1
    while length < len(parts) and not parts[length - 1].isdigit():
        if ".".join(parts[:length]) not in divided:
            break
        length += 1
    return ".".join(parts[:length]) or BASE


def _stated_layers(model: nn.Module, stated: Any) -> dict[str, Layer]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    places: dict[str, Layer] = {}
    try:
        listed = list(stated)
    except TypeError:
        raise TargetError(
            f"model: its layer_groups() returned a {type(stated).__name__}, expected a list of "
            "layers, from the first to the last"
        ) from None
    for place, layer in enumerate(listed):
        for parameter in _parameters(layer, place=place):
            if id(parameter) not in names:
                raise TargetError(
                    f"model: layer {place} of its layer_groups() has a parameter of shape "
                    f"{tuple(parameter.shape)} that the model does not have"
                )
            # A weight that stands in two layers (tied ones) counts for the first.
            places.setdefault(names[id(parameter)], Layer(place, f"layer_{place}"))
    left = [name for name in trainable(model) if name not in places]
    if left:
        raise TargetError(
            f"model: its layer_groups() leaves out {_shown(left)}; expected every parameter that "
            "trains in a layer"
        )
    return places


def _parameters(layer: Any, *, place: int) -> Iterator[nn.Parameter]:
    if isinstance(layer, nn.Parameter):
        yield layer
    elif isinstance(layer, nn.Module):
        yield from layer.parameters()
    elif isinstance(layer, Iterable) and not isinstance(layer, str):
        for part in layer:
            yield from _parameters(part, place=place)
    else:
        raise TargetError(
            f"model: layer {place} of its layer_groups() holds a {type(layer).__name__}, expected "
            "modules, parameters or lists of them"
        )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
