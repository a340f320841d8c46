"""What is trained or kept beside the model: the state of loss and step, where these have some.

A loss with weights of its own is a module whose parameters are trained with the model's; whatever
has a `state_dict` is stored with the model's checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from epochal.data.errors import TargetError


@dataclass(frozen=True)
class Companion:
    """A loss or step with state. part: a module, or what has a `state_dict` that can be loaded.

    fixed: names of a module's parameters that take no gradient, as those of a network that only
    measures: they are as they were built and are not stored.
    """

    part: Any
    fixed: frozenset[str] = frozenset()

    def state_dict(self) -> dict[str, Any]:
        """What is stored of it."""
        state = self.part.state_dict()
        return {name: value for name, value in state.items() if name not in self.fixed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` gave. Raises what the part raises."""
        if isinstance(self.part, nn.Module):
            self.part.load_state_dict(dict(state), strict=False)
        else:
            self.part.load_state_dict(state)


Companions = Mapping[str, Companion]
"""`loss`, `step` → what it is, where it has state."""


def companions_of(**parts: Any) -> dict[str, Companion]:
    """Those of the parts that have state; torch's own losses have none that changes."""
    found: dict[str, Companion] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            fixed = {inner for inner, one in part.named_parameters() if not one.requires_grad}
            companion = Companion(part, frozenset(fixed))
            plain = type(part).__module__.startswith("torch.nn.") and not list(part.parameters())
            if not plain and companion.state_dict():
                found[name] = companion
        elif all(
            callable(getattr(part, method, None)) for method in ("state_dict", "load_state_dict")
        ):
            found[name] = Companion(part)
    return found


def companion_parameters(companions: Companions, model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter that is trained, of the companions and not of the model: `loss.centers`.

    Raises TargetError if the model has a parameter of such a name.
    """
    own = dict(model.named_parameters())
    taken = {id(parameter) for parameter in own.values()}
    found: dict[str, nn.Parameter] = {}
    for name, companion in companions.items():
        if not isinstance(companion.part, nn.Module):
            continue
        for inner, parameter in companion.part.named_parameters():
            full = f"{name}.{inner}"
            if id(parameter) in taken or inner in companion.fixed:
                continue
            if full in own:
                raise TargetError(
                    f"{name}: its parameter {inner!r} would be trained as {full!r}, which is the "
                    "name of one of the model's; call that module of the model otherwise"
                )
            taken.add(id(parameter))
            found[full] = parameter
    return found
