"""Parameters that do not train in an epoch, and the modules that rest with them.

What is frozen is set anew for each epoch from the patterns that act in it: nothing is remembered,
so a resume, a retry and an epoch that failed in the middle need no care.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from epochal.data.errors import TargetError
from epochal.engine.model.parameter_groups import matching
from epochal.engine.model.state import TrainingState


def frozen_names(state: TrainingState, patterns: Collection[str]) -> frozenset[str]:
    """The parameters that the patterns match. Raises TargetError."""
    return frozenset(
        name
        for pattern in patterns
        for name in matching(state.trainable, pattern, field="optimizer.frozen")
    )


def check_frozen(state: TrainingState, patterns: Collection[str]) -> None:
    """Raises TargetError if a pattern matches nothing, or all of them leave nothing to train."""
    if len(frozen_names(state, patterns)) == len(state.trainable):
        raise TargetError(
            f"optimizer.frozen: {', '.join(sorted(patterns))} leave nothing to train in epoch 0; "
            "expected some parameter that none of them matches"
        )


def freeze(state: TrainingState, patterns: Collection[str]) -> None:
    """From now on exactly the matched parameters take no gradient; nor do those that never did."""
    frozen, named = frozen_names(state, patterns), state.named_parameters()
    for name in state.trainable:
        named[name].requires_grad_(name not in frozen)
        if name in frozen:
            named[name].grad = None  # what the optimizer would still apply


def set_training_mode(state: TrainingState, patterns: Collection[str]) -> None:
    """Training mode, but evaluation mode for modules all of whose parameters are frozen."""
    state.model.train()
    named = state.named_parameters()
    frozen = {id(named[name]) for name in frozen_names(state, patterns)}
    if not frozen:
        return
    for module in state.model.modules():
        parameters = list(module.parameters())
        if _rests(parameters, frozen):
            module.eval()


def _rests(parameters: list[nn.Parameter], frozen: set[int]) -> bool:
    return any(id(parameter) in frozen for parameter in parameters) and not any(
        parameter.requires_grad for parameter in parameters
    )
