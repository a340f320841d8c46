"""An error that came while Epochal called the user's code: whose it is, and in which module.

Reads the frames that the error itself holds, so that nothing need be noted while all goes well.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_CALLERS = tuple(
    f"epochal.{name}"
    for name in (
        *("engine", "data.loading", "data.inspection", "data.policies", "tasks.user_code"),
        *("tasks.run_data", "tasks.preflight.forward_pass", "tasks.planning.run_length"),
        "tasks.why.opened",
    )
)
"""Modules that call what the config names: a model, a data set, a loss, a metric."""
_OF_OURS = ("epochal.engine.checkpoint", "epochal.tasks.user_code.source_digests")
"""Modules among those that open files themselves."""


def raised_by_users_code(error: BaseException) -> bool:
    """Whether what the user brought raised it: their own files, or a package that a target names.

    What counts is which of Epochal's modules is the innermost among the frames: a store or disk
    that fails raises below one that calls no target.
    """
    modules = [_module_of(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]
    caller = next((name for name in reversed(modules) if name.startswith("epochal.")), "")
    return caller.startswith(_CALLERS) and not caller.startswith(_OF_OURS)


def failed_module(error: BaseException, roots: Mapping[str, nn.Module | None]) -> str:
    """`, in model.encoder.3 (Linear), called with …` for the innermost module; else empty.

    roots: name → the module whose parts are named by it.
    """
    from torch import nn

    from epochal.engine.model.batches import described

    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in reversed(list(traceback.walk_tb(cause.__traceback__))):
            module = frame.f_locals.get("self")
            if not isinstance(module, nn.Module) or frame.f_code.co_name != "forward":
                continue
            given = " and ".join(described(value) for value in _arguments(frame))
            kind = type(module).__name__
            return f", in {_name_of(module, roots) or 'a module'} ({kind}), called with {given}"
        cause = cause.__cause__
    return ""


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _arguments(frame: FrameType) -> list[Any]:
    """What a function was called with, `self` left out, as far as its names still hold that."""
    code = frame.f_code
    names = code.co_varnames[1 : code.co_argcount]
    return [frame.f_locals[name] for name in names if name in frame.f_locals]


def _name_of(module: nn.Module, roots: Mapping[str, nn.Module | None]) -> str | None:
    for name, root in roots.items():
        for path, part in () if root is None else root.named_modules():
            if part is module:
                return f"{name}.{path}" if path else name
    return None
