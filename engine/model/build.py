"""Builds model, loss and optimizer from what their targets give, and says what does not fit."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.optim import Optimizer

from epochal.data.errors import TargetError, passes_through
from epochal.engine.config.optimizer import ONE_OPTIMIZER
from epochal.engine.model.denominators import class_weights
from epochal.engine.randomness import seeded

# B samples of a micro-batch; … further dimensions

_MEAN, _BATCHMEAN = "mean", "batchmean"
_BY_HAND = "`reduction: none` is set by epochal, for one loss per sample"


@dataclass(frozen=True)
class Loss:
    """A loss as a function of (output, target).

    per_sample: whether it gives one number per sample, shape (B,) or (B, …), or one for the batch.
    ignore_index: targets that count nothing, or None. module: to be moved to the device, or None.
    class_weights: as `denominators.class_weights` gives them. per_sample_sum: whether a sample's
    loss is the sum over its elements, and not their mean (`reduction: batchmean`). own_mean: makes
    the loss with the mean over a batch that it defines itself; None where there is none.
    made: what the target gave, an object or a function.
    """

    function: Callable[[Any, Any], Tensor]
    per_sample: bool
    ignore_index: int | None = None
    module: nn.Module | None = None
    class_weights: Callable[[], Tensor | None] | None = None
    per_sample_sum: bool = False
    own_mean: Callable[[], Callable[[Any, Any], Any]] | None = None
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
        if tensor.is_meta:
            raise TargetError(
                f"model: {name} of {type(model).__name__} is on the device `meta`, which holds no "
                "numbers; build the model on the CPU, or give it its weights in the target"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TargetError(
            f"model: {type(model).__name__} has no parameter that requires a gradient: there is "
            "nothing to train"
        )
    return model


def build_loss(factory: Callable[..., Any], args: Mapping[str, Any]) -> Loss:
    """The loss of a module's class, of a factory without positional arguments, or of a function.

    Where it takes `reduction`, it is called with `none`; `batchmean` is the mean over the samples
    of sums over their elements. Raises TargetError.
    """
    if args.get("reduction") == "sum":
        raise TargetError(
            f"loss.args.reduction: found {args['reduction']!r}; the loss of an update is the mean "
            f"over its samples; leave it out ({_BY_HAND})"
        )
    of_sums = args.get("reduction") == _BATCHMEAN
    per_sample = (of_sums or "reduction" not in args) and _takes(factory, "reduction")
    given = {**args, "reduction": "none"} if per_sample else dict(args)
    per_sample = per_sample or args.get("reduction") == "none"
    makes = inspect.isclass(factory) or _num_positional(factory, given) == 0
    made = _made(factory, given) if makes else factory
    module = made if isinstance(made, nn.Module) else None
    function = made if makes else partial(factory, **given)
    # torch's own have no hooks to be called; looking for some takes a quarter of their time.
    if module is not None and type(made).__module__ == nn.CrossEntropyLoss.__module__:
        function = module.forward
    own_mean = None
    if _means(factory) and "reduction" not in args:
        again = partial(_made_again, factory, args, module)
        own_mean = again if makes else partial(partial, factory, **args)
    return Loss(
        function,
        per_sample,
        _ignored(made, given),
        module,
        class_weights=class_weights(made, given),
        per_sample_sum=of_sums,
        own_mean=own_mean,
        made=made,
    )


def _made(factory: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    try:
        made = factory(**given)
    except BaseException as error:  # a user's loss may raise anything
        if passes_through(error):
            raise
        raise TargetError(
            f"loss: its target raised {type(error).__name__}: {error}; args: {given}"
        ) from error
    if not callable(made):
        raise TargetError(
            f"loss: its target returned a {type(made).__name__}, expected a callable "
            "(output, target) -> loss"
        )
    return made


def _made_again(
    factory: Callable[..., Any], args: Mapping[str, Any], module: nn.Module | None
) -> Callable[[Any, Any], Any]:
    """The loss made once more, with its own reduction and the parameters of the first."""
    made = factory(**args)
    if module is not None and isinstance(made, nn.Module):
        made.load_state_dict(module.state_dict())
        made.to(next((one.device for one in module.state_dict().values()), None))
    own: Callable[[Any, Any], Any] = made
    return own


def _means(factory: Callable[..., Any]) -> bool:
    """Whether it has `reduction: mean` of its own; what torch's own divide by is known."""
    if getattr(factory, "__module__", "").startswith("torch.nn."):
        return False
    parameter = _parameters(factory).get("reduction")
    return parameter is not None and parameter.default == _MEAN


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
    if index is None and isinstance(loss, nn.LinearCrossEntropyLoss):
        index = nn.CrossEntropyLoss().ignore_index  # what its None stands for
    return index if isinstance(index, int) and not isinstance(index, bool) else None


class NoOptimizer(Optimizer):
    """Stands for an optimizer where nothing is trained: it has the parameters, and never steps."""

    def __init__(self, model: nn.Module, *, beside: Iterable[nn.Parameter] = ()) -> None:
        # Not torch's own: that imports the compiler, which takes longer than torch itself.
        parameters = [one for one in (*model.parameters(), *beside) if one.requires_grad]
        self.param_groups = [{"params": parameters, "lr": 0.0}]
        self.state = defaultdict(dict)
        self.defaults = {}

    def step(self, closure: Any = None) -> Any:  # noqa: ARG002 - as torch's own
        """Raises: nothing is trained here."""
        message = "a model that was built without its optimizer is not trained"
        raise RuntimeError(message)


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
    if isinstance(optimizer, list | tuple | dict):
        raise TargetError(
            f"optimizer: its target returned a {type(optimizer).__name__} of {len(optimizer)}, "
            f"expected a torch.optim.Optimizer; {ONE_OPTIMIZER}"
        )
    if not isinstance(optimizer, Optimizer):
        raise TargetError(
            f"optimizer: its target returned a {type(optimizer).__name__}, expected a "
            "torch.optim.Optimizer"
        )
    if _needs_closure(optimizer, factory, args):
        raise TargetError(
            f"optimizer: {type(optimizer).__name__} asks for a closure, to evaluate the loss "
            "several times in a step; the gradients of an update come from its own batches, once. "
            "Choose one that steps by gradients; a second gradient at moved weights, as SAM has, "
            "can be a `step`: docs/config.md, Limits"
        )
    return optimizer


def _needs_closure(
    optimizer: Optimizer, factory: Callable[..., Any], args: Mapping[str, Any]
) -> bool:
    """Whether `step()` asks for one, by its signature, or by its words where one is made up.

    The trial has a parameter of its own. What it raises for other reasons tells nothing: this
    parameter may have no shape that the optimizer takes.
    """
    closure = _parameters(type(optimizer).step).get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return True
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros_like(parameter)
    try:
        with seeded(0):
            factory([parameter], **args).step()
    except Exception as error:  # noqa: BLE001 - a user's optimizer may raise anything
        return "closure" in str(error).lower()
    return False
