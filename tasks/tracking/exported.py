"""A delivered model as `mlflow.pytorch.load_model` takes it: its graph, by torch.export, no pickle.

Not every module can be exported: what depends on the values of its inputs, or calls code that
torch cannot follow, cannot. Then the reason is told, and MLflow's `pyfunc` loads the model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.traces import in_one_line
from epochal.tasks.tracking.model_example import TENSOR, ModelExample
from epochal.tasks.tracking.saved_model import load_module

FILE = "model.pt2"
_TOLERANCE = 1e-3  # another order of sums; a graph that took another turn is further away


def export_model(folder: Path, example: ModelExample, numbers: bytes) -> str | None:
    """Writes `model.pt2` into a model's `data` folder; gives why it cannot be, or None.

    The graph is tried on one and on three samples before, and must do what the module does.
    """
    try:
        module, tensors = load_module(folder), _tensors(example, numbers)
        args, kwargs = _call(example, tensors)
        shapes = _dynamic(example, tensors)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's own insides
            program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
            for count in (1, 3):
                problem = _difference(module, program.module(), example, tensors, count)
                if problem is not None:
                    return problem
            torch.export.save(program, folder / FILE)
    except Exception as error:  # noqa: BLE001 - the user's code and the exporter raise anything
        return in_one_line(error)[:400]
    return None


def _tensors(example: ModelExample, numbers: bytes) -> list[Tensor]:
    tensors, start = [], 0
    raw = torch.frombuffer(bytearray(numbers), dtype=torch.uint8)
    for form in example.tensors:
        kind = getattr(torch, form.dtype)
        size = torch.Size(form.shape).numel() * kind.itemsize
        tensors.append(raw[start : start + size].clone().view(kind).reshape(form.shape))
        start += size
    return tensors


def _call(example: ModelExample, tensors: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args = tuple(_filled(value, tensors) for value in example.args)
    return args, {name: _filled(value, tensors) for name, value in example.kwargs.items()}


def _filled(value: Any, tensors: list[Any]) -> Any:
    if isinstance(value, dict):
        if [*value] == [TENSOR]:
            return tensors[value[TENSOR]]
        return {name: _filled(item, tensors) for name, item in value.items()}
    return [_filled(item, tensors) for item in value] if isinstance(value, list) else value


def _dynamic(example: ModelExample, tensors: list[Tensor]) -> Any:
    """The first length of each tensor may be any, by the names of `forward`'s parameters."""
    batch = tensors[0].shape[:1]
    free: list[Any] = [
        {0: torch.export.Dim.AUTO} if one.shape[:1] == batch and one.ndim else None
        for one in tensors
    ]
    args, kwargs = _call(example, free)
    return (*args, *kwargs.values()) if not kwargs else {**_positional(example, args), **kwargs}


def _positional(example: ModelExample, args: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(example.names, args, strict=False))


def _difference(
    module: nn.Module, graph: Any, example: ModelExample, tensors: list[Tensor], count: int
) -> str | None:
    def some(tensor: Tensor) -> Tensor:
        if tensor.shape[:1] != tensors[0].shape[:1]:
            return tensor
        return tensor[torch.arange(count) % len(tensor)]

    args, kwargs = _call(example, [some(tensor) for tensor in tensors])
    expected, found = _leaves(module(*args, **kwargs)), _leaves(graph(*args, **kwargs))
    if len(expected) != len(found):
        return "its graph gives other outputs than the module"
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape or not torch.allclose(
            one.double(), other.double(), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
        ):
            return f"its graph gives other numbers than the module, with {count} samples"
    return None


def _leaves(output: Any) -> list[Tensor]:
    leaves, _ = torch.utils._pytree.tree_flatten(output)  # noqa: SLF001 - what export itself uses
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
