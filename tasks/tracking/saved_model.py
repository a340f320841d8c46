"""Loads a model that Epochal has delivered to MLflow; needs torch, safetensors and NumPy alone.

A copy of this file lies in each such model as `loader/epochal_saved_model.py`, where MLflow's
`pyfunc` finds it: so the model loads where Epochal is not installed. It imports nothing of Epochal.

    data/model.json         the target that builds the module, and its arguments
    data/model.safetensors  the weights
    data/code/…             the user's files that the target runs
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from safetensors.torch import load_file

MODEL, WEIGHTS, CODE = "model.json", "model.safetensors", "code"
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Predictor:
    """The module in evaluation mode, on the CPU: arrays in, arrays out."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module.eval()

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The module's output as arrays of the same structure.

        model_input: an array or data frame of shape (B, …), or a dict of arrays: given by name
        if `forward` takes these names, else as the dict. Floats take the weights' type. `params`
        is MLflow's; no parameter is known: ValueError if there is one.
        """
        if params:
            message = f"this model takes no params, found {sorted(params)}"
            raise ValueError(message)
        tensors = self._tensors(model_input)
        with torch.inference_mode():
            if isinstance(tensors, dict) and _takes(self.module, tensors):
                return _arrays(self.module(**tensors))
            return _arrays(self.module(tensors))

    def _tensors(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(name): self._tensors(item) for name, item in value.items()}
        array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
        tensor = torch.from_numpy(np.array(array))
        if not tensor.is_floating_point():
            return tensor
        weights = (item.dtype for item in self.module.parameters() if item.is_floating_point())
        return tensor.to(next(weights, torch.get_default_dtype()))


def _takes(module: torch.nn.Module, names: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(module.forward).bind(**names)
    except TypeError:
        return False
    return True


def _arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, Mapping):
        return {name: _arrays(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_arrays(item) for item in value]
    return value


def load_module(folder: Path) -> torch.nn.Module:
    """The module of a model's `data` folder, with its weights, on the CPU.

    Raises what the user's code raises, and what torch does where the weights are of another module.
    """
    model = json.loads((folder / MODEL).read_bytes())
    with _importing_from(folder / CODE):
        module = _called(model)
    module.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    built: torch.nn.Module = module.eval()
    return built


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Inside the block the files of `folder` are imported by their names, and no others of these.

    Modules of other folders that bear these names stay what they were for everybody else.
    """
    tops = {path.stem for path in folder.iterdir()} if folder.is_dir() else set[str]()
    others = {
        name: module
        for name, module in sys.modules.copy().items()
        if name.partition(".")[0] in tops
    }
    for name in others:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        if others:
            for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
                del sys.modules[name]
            sys.modules.update(others)
        elif tops:
            sys.path.append(str(folder))  # for what is imported only when it is used


def _called(target: Mapping[str, Any]) -> Any:
    module, _, attribute = target["target"].partition(":")
    function: Any = importlib.import_module(module)
    for part in attribute.split("."):
        function = getattr(function, part)
    args = {name: _built(value) for name, value in target.get("args", {}).items()}
    return function(**_with_tensors(function, args))


def _built(value: Any) -> Any:
    """An argument, with the targets in it called, and the numbers that JSON lacks."""
    if isinstance(value, list):
        return [_built(item) for item in value]
    if not isinstance(value, dict):
        return value
    if [*value] == ["epochal:number"]:
        return _NUMBERS[value["epochal:number"]]
    name = value.get("target")
    if isinstance(name, str) and ":" in name and set(value) <= {"target", "args", "files"}:
        return _called(value)
    return {key.removeprefix("epochal:key:"): _built(item) for key, item in value.items()}


def _with_tensors(function: Callable[..., Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a parameter that is annotated as a tensor become one of floats."""
    called: Any = function.__init__ if inspect.isclass(function) else function
    try:
        hints = get_type_hints(called)
    except Exception:  # noqa: BLE001 - annotations of a user's code may be anything
        return dict(args)
    return {
        name: torch.tensor(value, dtype=torch.get_default_dtype())
        if _wants_tensor(hints.get(name)) and isinstance(value, int | float | list)
        else value
        for name, value in args.items()
    }


def _wants_tensor(annotation: Any) -> bool:
    return ({*get_args(annotation)} or {annotation}) - {type(None)} == {torch.Tensor}


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry: path is the model's data folder."""
    return Predictor(load_module(Path(path)))
