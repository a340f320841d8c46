"""Code that a person has: what a `module:attribute` is, and which arguments a model takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epochal.data.errors import InputError
from epochal.data.types import Target
from epochal.tasks.scaffold.guess import Kind
from epochal.tasks.scaffold.project import OwnModel
from epochal.tasks.user_code.targets import resolve_target

_CALLED: Mapping[str, tuple[str, ...]] = {
    "classes": ("classes", "num_classes", "n_classes", "num_labels", "out_dim", "num_outputs"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels", "input_channels"),
    "features": ("features", "in_features", "num_features", "input_dim", "in_dim", "input_size"),
    "vocabulary": ("vocabulary", "vocab_size", "num_tokens", "n_vocab"),
    "window": ("window", "block_size", "max_len", "max_length", "context", "seq_len"),
}
"""What parameters of models are called, by what they stand for."""


def kind_of_code(target: str, *, folder: Path) -> Kind:
    """What kind of project a class or function asks for. Raises InputError."""
    bases = bases_of(target, folder=folder)
    if "LightningModule" in bases:
        return "lightning"
    if "LightningDataModule" in bases:
        raise InputError(
            f"{target}: is a LightningDataModule; expected the LightningModule that it is for: "
            f"epochal init module:Class --data {target}"
        )
    if "Module" in bases:
        raise InputError(
            f"{target}: is a model; expected the data that it is to learn: epochal init DATA "
            f"--model {target}"
        )
    return "dataset"


def bases_of(target: str, *, folder: Path) -> set[str]:
    """Names of the class and its bases; none of what is no class. Raises InputError."""
    made = resolve_target(Target(target=target), field="SOURCE", folder=folder)
    return {one.__name__ for one in inspect.getmro(made)} if inspect.isclass(made) else set()


def own_model(
    target: str, *, known: Mapping[str, int | None], args: Mapping[str, Any], folder: Path
) -> OwnModel:
    """The model with the arguments that are known of the data, or given. Raises InputError."""
    function = resolve_target(Target(target=target), field="--model", folder=folder)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return OwnModel(target, dict(args))
    made = {}
    for meaning, value in known.items():
        name = next((name for name in _CALLED[meaning] if name in parameters), None)
        if name is not None and name not in args and value is not None:
            made[name] = value
    made |= args
    missing = [
        name
        for name, one in parameters.items()
        if one.default is inspect.Parameter.empty
        and one.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        and name not in made
    ]
    if missing:
        raise InputError(
            f"--model {target}: nothing is known for {', '.join(missing)}, which has no default; "
            f"give it by --args '{{\"{missing[0]}\": …}}'"
        )
    return OwnModel(target, made)
