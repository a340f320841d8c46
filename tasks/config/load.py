"""From a YAML file and `--set` to a `RunConfig`, with errors that name field, value and remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from epochal.data.errors import ConfigError
from epochal.data.secrets import INSTEAD, masked, secret_places
from epochal.data.types import AS_WRITTEN
from epochal.tasks.config.problems import sentences
from epochal.tasks.config.run import FORMER_NAMES, RunConfig
from epochal.tasks.config.yaml_reader import parse_yaml, read_yaml_mapping


def load_config(path: Path | str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The config at `path` with `a.b=value` overrides applied; `folder` is the file's folder.

    Raises ConfigError for everything that is wrong with it, all problems at once.
    """
    path = Path(path)
    data = read_yaml_mapping(path)
    if describes_sweep(data):
        raise ConfigError(
            f"{path}: it is the file of a sweep, which names a run's config; `epochal sweep` "
            "trains its runs, and `epochal plan` takes it too"
        )
    data.setdefault("folder", str(path.resolve().parent))
    for override in overrides:
        apply_override(data, override)
    return build_config(data, name=str(path))


def describes_sweep(data: Mapping[str, Any]) -> bool:
    """Whether it is the content of a sweep's file, and not of a run's."""
    return "model" not in data and bool({"run", "vary", "runs"} & data.keys())


def apply_override(data: dict[str, Any], override: str) -> None:
    """Sets one `a.b=value` in `data`; the value is YAML: `0.01`, `[1, 2]`, `{kind: constant}`."""
    name, value = parsed_override(override)
    set_field(data, name, value, told=f"--set {name}")


def parsed_override(override: str) -> tuple[str, Any]:
    """Name and value of one `a.b=value`. Raises ConfigError."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.strip().split(".")):
        raise ConfigError(
            f"--set {masked(override)}: expected path=value, for example optimizer.args.lr=0.01"
        )
    return name.strip(), parse_yaml(text, name=f"--set {name}")


def set_field(data: dict[str, Any], name: str, value: Any, *, told: str) -> None:
    """Sets the field of that dotted name in `data`; a group of fields is replaced as a whole.

    told: how errors name it. Raises ConfigError if what it is in is no group.
    """
    parts = name.strip().split(".")
    former = next((old for old, new in FORMER_NAMES.items() if parts[0] in {old, new}), None)
    if former is not None:  # the file may give it one name, the command line the other
        parts[0] = FORMER_NAMES[former]
        if former in data and parts[0] not in data:
            data[parts[0]] = data.pop(former)
    node: Any = data
    for depth, part in enumerate(parts[:-1]):
        node = node.setdefault(part, {}) if isinstance(node, dict) else node
        if node is None or not isinstance(node, dict):
            raise ConfigError(f"{told}: {'.'.join(parts[: depth + 1])} is not a group of fields")
    node[parts[-1]] = value


def build_config(data: dict[str, Any], *, name: str) -> RunConfig:
    """Validates `data`; `name` stands in the error."""
    return built(RunConfig, data, name=name)


Model = TypeVar("Model", bound=BaseModel)


def built(root: type[Model], data: dict[str, Any], *, name: str) -> Model:
    """Validates `data` as a config of that class, as `build_config` does."""
    refuse_secrets(data, name=name)
    try:
        return root.model_validate(data, context=AS_WRITTEN)
    except ValidationError as error:
        lines = [f"{name}: {sentence}" for sentence in sentences(error, root)]
        raise ConfigError("\n".join(lines)) from None


def refuse_secrets(data: dict[str, Any], *, name: str) -> None:
    """Raises ConfigError if a password stands anywhere in a config; never repeats it."""
    lines = [f"{name}: {place}: holds a password; {INSTEAD}" for place in secret_places(data)]
    if lines:
        raise ConfigError("\n".join(lines))
