"""A model as MLflow can load it: the weights, the target that builds it, the user's source files.

`mlflow.pyfunc.load_model` calls `_load_pyfunc` here. The folder is written by hand: MLflow's own
`log_model` infers requirements, which takes 9 to 18 s, and pickles. No pickle on either side.

    MLmodel              what MLflow reads first
    requirements.txt     what the environment needs
    data/model.json      target and args
    data/model.safetensors
    data/code/…          the user's files, at their paths below where they are imported from
"""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epochal.data.types import Target, in_json
from epochal.tasks.user_code.targets import call_target, resolved_args

if TYPE_CHECKING:
    import torch

PACKAGES = ("epochal", "torch", "safetensors", "numpy")
_MODEL, _WEIGHTS, _CODE = "model.json", "model.safetensors", "code"


@dataclass(frozen=True)
class ModelSource:
    """What builds the module that the weights go into.

    folder: of the config. files: the user's files that the target runs, by their names below where
    they are imported from, as they were when the run began.
    """

    target: Target
    folder: Path
    files: Mapping[str, bytes] = field(default_factory=dict)


def write_model_folder(
    folder: Path, *, weights: Path, source: ModelSource, model_id: str, run_id: str
) -> None:
    """Writes the folder that MLflow loads, with a copy of `weights` (safetensors)."""
    data = folder / "data"
    data.mkdir(parents=True)
    shutil.copyfile(weights, data / _WEIGHTS)
    args = in_json(resolved_args(source.target.args, folder=source.folder))
    model = {"target": source.target.target, "args": args}
    (data / _MODEL).write_text(json.dumps(model, indent=2, sort_keys=True), encoding="utf-8")
    for name, content in source.files.items():
        place = data / _CODE / name
        assert place.resolve().is_relative_to(data.resolve()), name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    versions = {name: metadata.version(name) for name in PACKAGES}
    requirements = "".join(f"{name}=={version}\n" for name, version in versions.items())
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    description = {
        "artifact_path": model_uri(model_id),
        "flavors": {
            "python_function": {
                "loader_module": "epochal.tasks.tracking.model_folder",
                "data": "data",
                "python_version": ".".join(map(str, sys.version_info[:3])),
            }
        },
        "mlflow_version": metadata.version("mlflow"),
        "model_id": model_id,
        "model_uuid": model_id,
        "run_id": run_id,
        "utc_time_created": f"{datetime.now(UTC).replace(tzinfo=None)}",
    }
    text = yaml.safe_dump(description, sort_keys=True)
    (folder / "MLmodel").write_text(text, encoding="utf-8")


def model_uri(model_id: str) -> str:
    """What `mlflow.pyfunc.load_model` takes."""
    return f"models:/{model_id}"


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
        import torch

        if params:
            message = f"this model takes no params, found {sorted(params)}"
            raise ValueError(message)
        tensors = self._tensors(model_input)
        with torch.inference_mode():
            if isinstance(tensors, dict) and _takes(self.module, tensors):
                return _arrays(self.module(**tensors))
            return _arrays(self.module(tensors))

    def _tensors(self, value: Any) -> Any:
        import numpy as np
        import torch

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
    import torch

    if isinstance(value, torch.Tensor):
        return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, Mapping):
        return {name: _arrays(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_arrays(item) for item in value]
    return value


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry: builds the module from `path`, the model's data folder, and loads it."""
    from epochal.engine.checkpoint.serialize import load_model_tensors, load_tensors

    folder = Path(path)
    model = Target.model_validate_json((folder / _MODEL).read_bytes())
    module = call_target(model, field="model", folder=folder / _CODE)
    load_model_tensors(module, load_tensors(folder / _WEIGHTS, device="cpu"))
    return Predictor(module)
