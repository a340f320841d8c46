"""State that a step changes and several processes would each change: found before the start.

What an update changes at its end is the same in all of them. What a forward pass changes is not:
running statistics of normalisation are kept in order, anything else belongs to one process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from epochal.data.errors import ConfigError
from epochal.engine.loop.shared_update import Held
from epochal.engine.shards.running_statistics import RunningStatistics
from epochal.tasks.preflight.carried_state import equal, extra_states
from epochal.tasks.user_code.components import Components

ALONE = "several processes would each change their own; use launch.processes: 1"


def check_shared(components: Components, step: Callable[[], Any]) -> None:
    """Raises TargetError or ConfigError, naming it. step: one training step without an update."""
    state = components.state
    held = Held(state, RunningStatistics(state.model))
    parts = {
        name: companion
        for name, companion in state.companions.items()
        if not isinstance(companion.part, nn.Module)
    }
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    extra = extra_states(components)
    held.note()
    step()
    held.check()
    for name, companion in parts.items():
        if not equal(before[name], companion.state_dict()):
            raise ConfigError(
                f"launch.processes: each step changes the state_dict of `{name}`, and {ALONE}"
            )
    for owner, found in extra:
        if not equal(found, owner.get_extra_state()):
            raise ConfigError(
                "launch.processes: each step changes the extra state of a "
                f"{type(owner).__name__}, and {ALONE}"
            )
