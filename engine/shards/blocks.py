"""Which parts of a model are gathered at once, where no process holds all of its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

from epochal.data.errors import TargetError

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)


@dataclass(frozen=True)
class Block:
    """A module whose own parameters are gathered before its forward pass, and freed after it.

    parameters: by their names in the model, in FSDP2's order; those of blocks inside are not among
    them.
    """

    name: str
    module: nn.Module
    parameters: dict[str, nn.Parameter]


def blocks_of(model: nn.Module, class_names: Collection[str] = ()) -> list[Block]:
    """The blocks of a model, the model itself as the last: it has what no other has.

    class_names: of modules that are blocks; none: the layers of its containers, and its children
    that have no container inside. Raises TargetError if a class is not there.
    """
    _check(model)
    chosen = dict(_named(model, class_names) if class_names else _found(model, ""))
    if missing := set(class_names) - {type(module).__name__ for module in chosen.values()}:
        raise TargetError(
            f"launch.shard_blocks: no module of {type(model).__name__} is a {min(missing)}; "
            "expected names of classes of its modules, such as TransformerEncoderLayer"
        )
    tied = _tied(model)
    modules = {
        name: module
        for name, module in chosen.items()
        # A parameter of two blocks belongs to neither.
        if any(True for _ in module.parameters())
        and not any(id(parameter) in tied for parameter in module.parameters())
    }
    inside = {id(module) for module in modules.values()}
    blocks = [
        Block(name, module, dict(_own(module, name, inside, set())))
        for name, module in modules.items()
    ]
    return [*blocks, Block("", model, dict(_own(model, "", inside, set())))]


def _named(module: nn.Module, class_names: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    taken: list[str] = []
    for name, child in module.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in taken)
        if name and not inner and type(child).__name__ in class_names:
            taken.append(name)
            yield name, child


def _found(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        place = f"{prefix}{name}"
        layer = isinstance(module, _CONTAINERS) and not isinstance(child, _CONTAINERS)
        if layer or not _has_container(child):
            yield place, child
        else:
            yield from _found(child, f"{place}.")


def _has_container(module: nn.Module) -> bool:
    return any(isinstance(one, _CONTAINERS) for one in module.modules())


def _own(
    module: nn.Module, prefix: str, blocks: Collection[int], seen: set[int]
) -> Iterator[tuple[str, nn.Parameter]]:
    """FSDP2 takes the parameters of a module's children before its own, each once."""
    for name, child in module.named_children():
        if id(child) not in blocks:
            yield from _own(child, f"{prefix}.{name}" if prefix else name, blocks, seen)
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) not in seen:
            seen.add(id(parameter))
            yield (f"{prefix}.{name}" if prefix else name), parameter


def _tied(model: nn.Module) -> set[int]:
    """Parameters that are in several modules, by `id`."""
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()  # noqa: SLF001 - each once, whoever has it too
        if parameter is not None
    )
    return {one for one, count in owners.items() if count > 1}


def _check(model: nn.Module) -> None:
    """Raises TargetError for parameters that cannot lie in slices."""
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase):
            raise TargetError(
                f"launch.shard_model: {name or type(model).__name__} is a "
                f"{type(module).__name__}, which keeps its weights a second time and would go on "
                "with these; leave launch.shard_model out"
            )
        if getattr(module, "sparse", False) is True:
            raise TargetError(
                f"launch.shard_model: {name} gives sparse gradients, which are not sent in slices; "
                "give it sparse=False"
            )
    for name, parameter in model.named_parameters():
        if not parameter.ndim or parameter.is_complex() or not parameter.is_contiguous():
            raise TargetError(
                f"launch.shard_model: {name} is {parameter.dtype} of shape "
                f"{tuple(parameter.shape)}; expected real numbers in at least one dimension, in "
                "order in memory; leave launch.shard_model out, or precision.channels_last"
            )
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):  # noqa: SLF001 - there is no public name
            raise TargetError(
                f"launch.shard_model: {name} has a hook on its gradient, which is in no process as "
                "a whole; use a hook of its module, or leave launch.shard_model out"
            )
