"""From a YAML file and `--set` to a `RunConfig`, with errors that name field, value and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from epochal.data.errors import ConfigError
from epochal.data.secrets import INSTEAD, masked, secret_places
from epochal.data.types import AS_WRITTEN
from epochal.tasks.config.run import FORMER_NAMES, RunConfig
from epochal.tasks.config.yaml_reader import parse_yaml, read_yaml_mapping

MAX_SHOWN_CHARS = 80
MAX_SENTENCE_CHARS = 1200
_NAMED = re.compile(r"[a-z_][a-z_.]*: ")


def load_config(path: Path | str, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The config at `path` with `a.b=value` overrides applied; `folder` is the file's folder.

    Raises ConfigError for everything that is wrong with it, all problems at once.
    """
    path = Path(path)
    data = read_yaml_mapping(path)
    data.setdefault("folder", str(path.resolve().parent))
    for override in overrides:
        apply_override(data, override)
    return build_config(data, name=str(path))


def apply_override(data: dict[str, Any], override: str) -> None:
    """Sets one `a.b=value` in `data`; the value is YAML: `0.01`, `[1, 2]`, `{kind: constant}`."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {masked(override)}: expected path=value, for example optimizer.args.lr=0.01"
        )
    former = next((old for old, new in FORMER_NAMES.items() if parts[0] in {old, new}), None)
    if former is not None:  # the file may give it one name, the command line the other
        parts[0] = FORMER_NAMES[former]
        if former in data and parts[0] not in data:
            data[parts[0]] = data.pop(former)
    node: Any = data
    for depth, part in enumerate(parts[:-1]):
        node = node.setdefault(part, {}) if isinstance(node, dict) else node
        if node is None or not isinstance(node, dict):
            raise ConfigError(
                f"--set {name}: {'.'.join(parts[: depth + 1])} is not a group of fields"
            )
    node[parts[-1]] = parse_yaml(text, name=f"--set {name}")


def build_config(data: dict[str, Any], *, name: str) -> RunConfig:
    """Validates `data`; `name` stands in the error."""
    refuse_secrets(data, name=name)
    try:
        return RunConfig.model_validate(data, context=AS_WRITTEN)
    except ValidationError as error:
        lines = [
            f"{name}: {_cut(_sentence(problem))}" for problem in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def refuse_secrets(data: dict[str, Any], *, name: str) -> None:
    """Raises ConfigError if a password stands anywhere in a config; never repeats it."""
    lines = [f"{name}: {place}: holds a password; {INSTEAD}" for place in secret_places(data)]
    if lines:
        raise ConfigError("\n".join(lines))


def _cut(sentence: str) -> str:
    if len(sentence) <= MAX_SENTENCE_CHARS:
        return sentence
    return f"{sentence[: MAX_SENTENCE_CHARS - 1]}…"


def _sentence(problem: ErrorDetails) -> str:
    location = list(problem["loc"])
    field = _field_name(location)
    match problem["type"]:
        case "extra_forbidden":
            return _unknown_key(location, field)
        case "missing":
            return f"{field}: is missing; {_help(location)}"
        case "value_error" if isinstance(problem["input"], dict):
            return _of_several_fields(problem["msg"].removeprefix("Value error, "), field)
        case "union_tag_not_found":
            return f"{field}.kind: is missing; expected one of {', '.join(_kinds(location))}"
        case "union_tag_invalid":
            kind = problem.get("ctx", {}).get("tag", "?")
            return f"{field}.kind: found {kind!r}; expected one of {_tags(problem)}"
    expected = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "bool_type":
        expected += ", true or false"
    elif problem["type"] in {"int_type", "float_type"} and isinstance(problem["input"], str):
        expected += ", without quotes"
    expected = expected[:1].lower() + expected[1:] if expected.startswith("Input ") else expected
    shown = _shown(repr(problem["input"]))
    return f"{field}: found {shown}; {expected}; {_help(location)}"


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _of_several_fields(text: str, field: str) -> str:
    """The error of a check over several fields; it may begin with a field's name in the group."""
    if not field:
        return text
    return f"{field}.{text}" if _NAMED.match(text) else f"{field}: {text}"


def _kinds(location: Sequence[int | str]) -> list[str]:
    """The kinds of a group that has several, in their order."""
    models: list[type[BaseModel]] = [RunConfig]
    for part in location:
        models = _step(models, part)
    return [str(_kind_of(model)) for model in models]


def _tags(problem: ErrorDetails) -> str:
    return str(problem.get("ctx", {}).get("expected_tags", "")).replace("'", "")


def _unknown_key(location: Sequence[int | str], field: str) -> str:
    known = sorted(_known_keys(location[:-1]))
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"{field}: there is no such key; {hint}"


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _models(argument)


def _step(models: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]]:
    """The models below the next part of an error's location; the tag of a union leads no deeper."""
    tagged = [model for model in models if _kind_of(model) == part]
    if tagged:
        return tagged
    models_below: list[type[BaseModel]] = []
    for model in models:
        field = _fields(model).get(str(part))
        if field is not None:
            models_below.extend(_models(field.annotation))
    return models_below if models_below or not isinstance(part, int) else models


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the names that a config gives them: `from` is no name in Python."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _known_keys(location: Sequence[int | str]) -> set[str]:
    models: list[type[BaseModel]] = [RunConfig]
    for part in location:
        models = _step(models, part)
    return {key for model in models for key in _fields(model)}


_VERBS = ("returns ", "replaces ", "ends ")
"""With which some descriptions of fields begin."""


def _help(location: Sequence[int | str]) -> str:
    models: list[type[BaseModel]] = [RunConfig]
    for part in location[:-1]:
        models = _step(models, part)
    for model in models:
        field = _fields(model).get(str(location[-1]) if location else "")
        if field is not None and field.description:
            verb = "" if field.description.startswith(_VERBS) else "is "
            return f"it {verb}{field.description}"
    return "see the reference of the config"


def _field_name(location: Sequence[int | str]) -> str:
    """The field as the user wrote it: without the tag that a union adds to the location."""
    parts: list[str] = []
    models: list[type[BaseModel]] = [RunConfig]
    for part in location:
        is_tag = any(_kind_of(model) == part for model in models) and len(models) > 1
        models = _step(models, part)
        if not is_tag:
            parts.append(f"[{part}]" if isinstance(part, int) else _shown(str(part)))
    return ".".join(parts).replace(".[", "[")
