"""Builds model, loss and optimizer from what their targets give, and says what does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer

from epochal.data.errors import EpochalError, TargetError
from epochal.engine.randomness import seeded

# B samples of a micro-batch; … further dimensions

_SUMS = {"sum", "batchmean"}
_BY_HAND = "`reduction: none` is set by epochal, for one loss per sample"


@dataclass(frozen=True)
class Loss:
    """A loss as a function of (output, target).

    per_sample: whether it gives one number per sample, shape (B,) or (B, …), or one for the batch.
    ignore_index: targets that count nothing, or None. module: to be moved to the device, or None.
    made: what the target gave, an object or a function.
    """

    function: Callable[[Any, Any], Tensor]
    per_sample: bool
    ignore_index: int | None = None
    module: nn.Module | None = None
    made: Any = None


def build_model(make: Callable[[], Any], *, seed: int) -> nn.Module:
    """The model that `make` returns, with the initial weights that `seed` gives.

    Raises TargetError if it is no module, has nothing to train or parameters without a shape.
    """
    with seeded(seed):
        model = make()
    if not isinstance(model, nn.Module):
        raise TargetError(
            f"model: its target returned a {type(model).__name__}, expected a torch.nn.Module"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise TargetError(
                f"model: {name} of {type(model).__name__} has no shape yet; give lazy layers their "
                "sizes, or run one batch through the model in its target"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TargetError(
            f"model: {type(model).__name__} has no parameter that requires a gradient: there is "
            "nothing to train"
        )
    return model


def build_loss(factory: Callable[..., Any], args: Mapping[str, Any]) -> Loss:
    """The loss of a module's class, of a factory without positional arguments, or of a function.

    Where it takes `reduction`, it is called with `none`. Raises TargetError.
    """
    if args.get("reduction") in _SUMS:
        raise TargetError(
            f"loss.args.reduction: found {args['reduction']!r}; the loss of an update is the mean "
            f"over its samples; leave it out ({_BY_HAND})"
        )
    per_sample = "reduction" not in args and _takes(factory, "reduction")
    given = {**args, "reduction": "none"} if per_sample else dict(args)
    per_sample = per_sample or args.get("reduction") == "none"
    if inspect.isclass(factory) or _num_positional(factory, given) == 0:
        try:
            made = factory(**given)
        except EpochalError:
            raise
        except (Exception, SystemExit) as error:  # a user's loss may raise anything
            raise TargetError(
                f"loss: its target raised {type(error).__name__}: {error}; args: {dict(args)}"
            ) from error
        if not callable(made):
            raise TargetError(
                f"loss: its target returned a {type(made).__name__}, expected a callable "
                "(output, target) -> loss"
            )
        module = made if isinstance(made, nn.Module) else None
        # torch's own have no hooks to be called; looking for some takes a quarter of their time.
        own = module is not None and type(made).__module__ == nn.CrossEntropyLoss.__module__
        function = made.forward if own else made
        return Loss(function, per_sample, _ignored(made, given), module, made)
    function = partial(factory, **given)
    return Loss(function, per_sample, _ignored(factory, given), made=factory)


def _takes(function: Callable[..., Any], name: str) -> bool:
    return name in _parameters(function)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}  # some built-ins tell none; trying the step will tell


def _num_positional(function: Callable[..., Any], given: Mapping[str, Any]) -> int:
    """How many arguments without a default are left once `given` is bound."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        parameter.kind in kinds
        and parameter.default is inspect.Parameter.empty
        and parameter.name not in given
        for parameter in _parameters(function).values()
    )


def _ignored(loss: Any, given: Mapping[str, Any]) -> int | None:
    """`ignore_index` as it was given, as the module holds it, or as the function defaults to."""
    index = given.get("ignore_index", getattr(loss, "ignore_index", None))
    if index is None and not isinstance(loss, nn.Module):
        parameter = _parameters(loss).get("ignore_index")
        index = None if parameter is None else parameter.default
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def build_optimizer(
    model: nn.Module,
    factory: Callable[..., Any],
    args: Mapping[str, Any],
    *,
    groups: Sequence[dict[str, Any]] | None = None,
    beside: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """`factory(parameters, **args)` over the parameters that require a gradient.

    groups: given instead of the parameters, as torch takes them. beside: what is trained with the
    model's, after them.

    Raises TargetError if it refuses them, is no optimizer or needs a closure.
    """
    parameters: list[Any] = [
        parameter for parameter in (*model.parameters(), *beside) if parameter.requires_grad
    ]
    if groups is not None:
        parameters = list(groups)
    try:
        optimizer = factory(parameters, **args)
    except (TypeError, ValueError) as error:
        raise TargetError(
            f"optimizer.args: {getattr(factory, '__name__', factory)} refuses them: {error}"
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise TargetError(
            f"optimizer: its target returned a {type(optimizer).__name__}, expected a "
            "torch.optim.Optimizer"
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TargetError(
            f"optimizer: {type(optimizer).__name__} evaluates the loss several times in a step "
            "(a closure), which an epoch over batches cannot give; choose another one"
        )
    return optimizer
