"""A model as MLflow can load it: the weights, the target that builds it, the user's source files.

The folder is written by hand: MLflow's own `log_model` infers requirements, which takes 9 to 18 s,
and it pickles. No pickle on either side.

    MLmodel                         what MLflow reads first: flavours, signature
    requirements.txt                what the environment needs; python_env.yaml with it
    input_example.json              the first sample's inputs, where they are few
    loader/epochal_saved_model.py   loads it without Epochal (`tasks.tracking.saved_model`)
    data/model.json                 target and args
    data/model.safetensors
    data/model.pt2                  its graph for `mlflow.pytorch`, once it is exported
    data/code/…                     the user's files, at their paths where they are imported from
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from epochal.data.types import Target, in_json
from epochal.tasks.tracking.model_example import ModelExample
from epochal.tasks.user_code.targets import resolved_args

if TYPE_CHECKING:
    from epochal.tasks.tracking.saved_model import Predictor

PACKAGES = ("mlflow", "torch", "safetensors", "numpy")
LOADER = "epochal_saved_model"
_MODEL, _WEIGHTS, _CODE = "model.json", "model.safetensors", "code"


@dataclass(frozen=True)
class Example:
    """What the model is called with, and the numbers; or why that is not known."""

    call: ModelExample | None
    numbers: bytes = b""
    problem: str = ""


def no_example() -> Example:
    """Where nobody has model and data at hand."""
    return Example(None, problem="it was delivered by a command that opened no data")


@dataclass(frozen=True)
class ModelSource:
    """What builds the module that the weights go into.

    folder: of the config. files: the user's files that the target runs, by their names below where
    they are imported from, as they were when the run began. packages: further ones that they
    import. example: asks for a call of it.
    """

    target: Target
    folder: Path
    files: Mapping[str, bytes] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    example: Callable[[], Example] = no_example


def write_model_folder(
    folder: Path,
    *,
    weights: Path,
    source: ModelSource,
    model_id: str,
    run_id: str,
    example: Example | None = None,
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
    (folder / "loader").mkdir()
    loader = Path(__file__).with_name("saved_model.py")
    shutil.copyfile(loader, folder / "loader" / f"{LOADER}.py")
    python = ".".join(map(str, sys.version_info[:3]))
    requirements = _requirements(source)
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    environment = {"python": python, "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    description = {
        "artifact_path": model_uri(model_id),
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "code": "loader",
                "data": "data",
                "env": {"virtualenv": "python_env.yaml"},
                "python_version": python,
            }
        },
        "mlflow_version": metadata.version("mlflow"),
        "model_id": model_id,
        "model_uuid": model_id,
        "run_id": run_id,
        "utc_time_created": f"{datetime.now(UTC).replace(tzinfo=None)}",
    }
    if example is not None and example.call is not None:
        description |= _with_example(folder, example.call, example.numbers)
    write_description(folder, description)


def _with_example(folder: Path, call: ModelExample, numbers: bytes) -> dict[str, Any]:
    """Writes the inputs of one sample; gives what MLmodel says of them."""
    told: dict[str, Any] = {} if call.signature is None else {"signature": call.signature}
    inputs = call.numbers(numbers)
    if inputs is not None:
        text = json.dumps({"inputs": inputs})
        for name in ("input_example.json", "serving_input_example.json"):
            (folder / name).write_text(text, encoding="utf-8")
        told["saved_input_example_info"] = {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "ndarray",
            "format": "tf-serving",
        }
    return told


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes the file that MLflow reads first."""
    text = yaml.safe_dump(dict(description), sort_keys=True)
    (folder / "MLmodel").write_text(text, encoding="utf-8")


def with_graph(description: Mapping[str, Any]) -> dict[str, Any]:
    """What MLmodel says once `data/model.pt2` is there too."""
    version = metadata.version("torch")
    flavour = {"model_data": "data", "pytorch_version": version, "code": None}
    return {**description, "flavors": {**description["flavors"], "pytorch": flavour}}


def _requirements(source: ModelSource) -> str:
    versions = {name: metadata.version(name) for name in PACKAGES} | dict(source.packages)
    runs = (source.target.target.encode(), json.dumps(source.target.args).encode())
    if any(b"epochal" in code for code in (*runs, *source.files.values())):
        versions["epochal"] = metadata.version("epochal")
    # A build for one kind of device (`2.13.0+cpu`) is in no public index under that name.
    return "".join(f"{name}=={of.partition('+')[0]}\n" for name, of in versions.items())


def model_uri(model_id: str) -> str:
    """What `mlflow.pyfunc.load_model` takes."""
    return f"models:/{model_id}"


def _load_pyfunc(path: str) -> Predictor:
    """MLflow's entry for models of before, whose MLmodel names this module."""
    from epochal.engine.checkpoint.serialize import load_model_tensors, load_tensors
    from epochal.tasks.tracking.saved_model import Predictor
    from epochal.tasks.user_code.targets import call_target

    folder = Path(path)
    model = Target.model_validate_json((folder / _MODEL).read_bytes())
    module = call_target(model, field="model", folder=folder / _CODE)
    load_model_tensors(module, load_tensors(folder / _WEIGHTS, device="cpu"))
    return Predictor(module)
