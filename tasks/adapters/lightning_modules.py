"""A LightningModule as a run's model: itself, and a word on what of it no step of ours calls."""

from __future__ import annotations

import ast
import inspect
import logging
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

from torch import nn

from epochal.data.errors import TargetError

logger = logging.getLogger(__name__)

_INSTEAD = {
    "optimizer_step": "gradients and `optimizer:` of the config",
    "optimizer_zero_grad": "`gradients.zeroing`",
    "backward": "the backward pass is Epochal's",
    "configure_gradient_clipping": "`gradients.clip_norm` or `clip_value`",
    "clip_gradients": "`gradients.clip_norm` or `clip_value`",
    "lr_scheduler_step": "`schedule:`",
    "on_before_backward": "put it into training_step",
    "on_after_backward": "gradient norms are measured by themselves",
    "on_before_optimizer_step": "gradient norms are measured by themselves",
    "on_before_zero_grad": "`ema:` where it averages the weights",
    "on_train_batch_start": "put it into training_step",
    "on_train_batch_end": "`ema:` where it averages the weights",
    "on_train_epoch_start": "nothing is called between epochs",
    "on_train_epoch_end": "nothing is called between epochs: `metrics:` measures",
    "on_validation_epoch_start": "nothing is called between epochs",
    "on_validation_epoch_end": "`metrics.validation` gathers over batches",
    "on_validation_batch_start": "put it into validation_step",
    "on_validation_batch_end": "put it into validation_step",
    "configure_callbacks": "`early_stopping:`, `checkpoint:`, `ema:`, `averaging:`",
    "on_save_checkpoint": "what is to be kept belongs into buffers of the module",
    "on_load_checkpoint": "what is to be kept belongs into buffers of the module",
    "transfer_batch_to_device": "batches are moved by Epochal",
}
"""Methods that Lightning's Trainer calls and no run of ours does, and what there is instead."""

_HARMLESS = ("on_fit_start", "on_fit_end", "on_train_start", "on_train_end", "teardown")
_TOLD_BY_TRAINER = {
    "current_epoch": "it is always 0 here",
    "global_step": "it is always 0 here",
    "optimizers": "the optimizer is Epochal's",
    "lr_schedulers": "the schedule is Epochal's",
    "manual_backward": "the backward pass is Epochal's",
    "trainer": "there is none",
    "logger": "there is none: what is logged by self.log becomes parts of the loss",
}
"""Attributes that only a Trainer fills."""

_STEPS = ("forward", "training_step", "validation_step")
_OF_MODULE: WeakValueDictionary[int, Any] = WeakValueDictionary()
"""Id of a parameter → the LightningModule that it belongs to."""


def lightning(module: Any, without: Sequence[str] = ()) -> nn.Module:
    """The LightningModule, for `model:`; its own `state_dict` names stay.

    module: `{target: …, args: …}` of a LightningModule. without: methods and attributes that the
    run does without, by their names: those that would change numbers are refused else.
    `configure_model`, `prepare_data` and `setup("fit")` are called, as its Trainer does.

    Raises TargetError for what is no LightningModule, manual optimization, or what is not carried
    over and not named in `without`.
    """
    name = type(module).__name__
    if not is_lightning(module):
        raise TargetError(
            f"model.args.module: found a {name}, expected a LightningModule, as {{target: "
            '"module:Class", args: {…}}'
        )
    if not module.automatic_optimization:
        raise TargetError(
            f"model: {name} has automatic_optimization = False: it steps its optimizers inside "
            "training_step, which no checkpoint inside an epoch could go on from; give its losses "
            "by a `step` of your own: docs/step.md"
        )
    if not _overrides(module, "training_step"):
        raise TargetError(
            f"model: {name} has no training_step; expected one, of (batch, batch_idx)"
        )
    lost = not_carried(module)
    _check_without(name, without, lost)
    refused = [method for method in lost if method not in without]
    if refused:
        told = "; ".join(f"{method} ({lost[method]})" for method in refused)
        raise TargetError(
            f"model: {name} has what no run calls: {told}. Move what matters, and name what the "
            f"run does without: model.args.without: [{', '.join([*without, *refused])}]"
        )
    harmless = [method for method in _HARMLESS if _overrides(module, method)]
    if lost or harmless:
        logger.warning(
            "%s: not called here: %s (docs/moving-in.md)", name, ", ".join([*lost, *harmless])
        )
    for method in ("configure_model", "prepare_data"):
        getattr(module, method)()
    module.setup("fit")
    for parameter in module.parameters():
        _OF_MODULE[id(parameter)] = module
    made: nn.Module = module
    return made


def is_lightning(module: Any) -> bool:
    """Whether it is a LightningModule, of `lightning` or of `pytorch_lightning`."""
    return isinstance(module, nn.Module) and "LightningModule" in _bases(module)


def module_of(parameters: Collection[Any]) -> Any:
    """The LightningModule that these parameters, or groups of them, belong to. TargetError."""
    for one in parameters:
        first = one["params"][0] if isinstance(one, dict) else one
        if (module := _OF_MODULE.get(id(first))) is not None:
            return module
    raise TargetError(
        "optimizer: its parameters are of no LightningModule; expected model: {target: "
        '"epochal.tasks.adapters:lightning", …}, all of it in one process (no launch.shard_model)'
    )


def _bases(module: Any) -> set[str]:
    return {one.__name__ for one in type(module).__mro__}


def _overrides(module: Any, method: str) -> bool:
    """Whether a class of the user's, and not Lightning, defines the method."""
    for one in type(module).__mro__:
        if method in vars(one):
            return one.__module__.partition(".")[0] not in {
                "lightning", "pytorch_lightning", "torch", "lightning_fabric",
            }  # fmt: skip
    return False


def not_carried(module: Any) -> dict[str, str]:
    """What is overridden or used that no run of ours calls or fills → what there is instead."""
    lost = {method: instead for method, instead in _INSTEAD.items() if _overrides(module, method)}
    for method, attribute in _used(module):
        lost.setdefault(attribute, f"used in {method}: {_TOLD_BY_TRAINER[attribute]}")
    if _uses_place(module):
        lost.setdefault("batch_idx", "used in training_step: it is always 0 here")
    return lost


def _used(module: Any) -> Iterator[tuple[str, str]]:
    """(method, attribute) of what only a Trainer fills, in what is called of the module."""
    for name, tree in _trees(module):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
                and node.attr in _TOLD_BY_TRAINER
            ):
                yield name, node.attr


def _uses_place(module: Any) -> bool:
    """Whether training_step reads its second argument, which number the batch has."""
    tree = dict(_trees(module)).get("training_step")
    if tree is None:
        return False
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = [one.arg for one in function.args.args]
    place = arguments[2] if len(arguments) > 2 else None  # noqa: PLR2004 - after self and batch
    return any(isinstance(node, ast.Name) and node.id == place for node in ast.walk(tree))


def _trees(module: Any) -> Iterator[tuple[str, ast.Module]]:
    """The methods that a run calls, and those of the user's that these call, as syntax trees."""
    waiting, seen = list(_STEPS), set()
    while waiting:
        name = waiting.pop()
        if name in seen or not _overrides(module, name):
            continue
        seen.add(name)
        function = inspect.unwrap(getattr(type(module), name))
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError):
            continue  # made at run time: its use shows when the step is tried
        if not isinstance(tree.body[0], ast.FunctionDef):
            continue
        waiting += [
            node.func.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "self"
        ]
        yield name, tree


def _check_without(name: str, without: Sequence[str], lost: Collection[str]) -> None:
    unknown = [one for one in without if one not in lost]
    if unknown:
        raise TargetError(
            f"model.args.without: {', '.join(unknown)}: {name} does not have or use it, or it is "
            f"carried over; expected of {', '.join(lost) or 'nothing'}"
        )
