"""What is wrong with a config, as people are told it: field, what was found, what is expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from epochal.data.types import Target

MAX_SHOWN_CHARS = 80
MAX_SENTENCE_CHARS = 1200
MAX_KEYS = 8  # that are named of a mapping
_NAMED = re.compile(r"[a-z_][a-z_.]*: ")
_BRANCH = re.compile(r"str|int|float|bool|constrained-\w+|literal\[.*\]|[A-Z]\w*")
"""What pydantic puts into an error's location for a branch of `str | Model`, `int | Literal[…]`."""
_NO_MAPPING = frozenset({"model_type", "model_attributes_type", "dict_type"})

Root = type[BaseModel]
"""The class of a whole config, which its fields are looked up in."""
Location = Sequence[int | str]


def sentences(error: ValidationError, root: Root) -> list[str]:
    """A sentence for each problem, the value's own branch alone where a field takes several."""
    by_branch: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in error.errors(include_url=False):
        by_branch.setdefault(_place(problem["loc"], root), []).append(problem)
    told = [
        _cut(sentence) for problems in by_branch.values() for sentence in _of_one(problems, root)
    ]
    return list(dict.fromkeys(told))


def _place(location: Location, root: Root) -> tuple[int | str, ...]:
    """Up to the branch of a union, if the location has one: what all its branches have alike."""
    models: list[Root] = [root]
    for depth, part in enumerate(location):
        if _is_branch(part, models):
            return tuple(location[:depth])
        models = _step(models, part)
    return tuple(location)


def _is_branch(part: int | str, models: Sequence[Root]) -> bool:
    known = any(part in _fields(model) for model in models)
    return not known and isinstance(part, str) and _BRANCH.fullmatch(part) is not None


def _of_one(problems: list[ErrorDetails], root: Root) -> list[str]:
    """The sentences of one place: of a mapping those of the mapping, of others one for all."""
    place = _place(problems[0]["loc"], root)
    if len(problems) == 1 or len(problems[0]["loc"]) == len(place):
        return [_sentence(problem, root) for problem in problems]
    inside = [one for one in problems if len(one["loc"]) > len(place) + 1]
    if inside:
        return [_sentence(problem, root) for problem in inside]
    first, *others = sorted(problems, key=lambda one: one["type"] in _NO_MAPPING)
    also = (_expected(one, root).split(" ", 1)[1].removeprefix("should be ") for one in others)
    return [_sentence(first, root, "".join(f", or {one}" for one in also))]


def _cut(sentence: str) -> str:
    if len(sentence) <= MAX_SENTENCE_CHARS:
        return sentence
    return f"{sentence[: MAX_SENTENCE_CHARS - 1]}…"


def _sentence(problem: ErrorDetails, root: Root, others: str = "") -> str:
    location = list(problem["loc"])
    field = _field_name(location, root)
    match problem["type"]:
        case "extra_forbidden":
            return _unknown_key(location, field, root)
        case "missing":
            return f"{field}: is missing; {_help(location, root)}"
        case "value_error" if isinstance(problem["input"], dict):
            return _of_several_fields(problem["msg"].removeprefix("Value error, "), field)
        case "union_tag_not_found":
            return f"{field}.kind: is missing; expected one of {', '.join(_kinds(location, root))}"
        case "union_tag_invalid":
            kind = problem.get("ctx", {}).get("tag", "?")
            return f"{field}.kind: found {kind!r}; expected one of {_tags(problem)}"
    shown = _shown(repr(problem["input"]))
    return f"{field}: found {shown}; {_expected(problem, root)}{others}; {_help(location, root)}"


def _expected(problem: ErrorDetails, root: Root) -> str:
    """What a value of that place is to be."""
    expected = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case kind if kind in _NO_MAPPING:
            return f"expected a mapping{_example(problem, root)}"
        case "tuple_type":
            return "expected a list"
        case "bool_type":
            expected += ", true or false"
        case "int_type" | "float_type" if isinstance(problem["input"], str):
            expected += ", without quotes"
    return expected[:1].lower() + expected[1:] if expected.startswith("Input ") else expected


def _example(problem: ErrorDetails, root: Root) -> str:
    """The mapping that was perhaps meant, or the keys that it may have."""
    location, given = list(problem["loc"]), problem["input"]
    models: list[Root] = [root]
    for part in location:
        models = _step(models, part)
    for key, field in (one for model in models for one in _fields(model).items()):
        if given in _choices(field.annotation):
            return f": {{{key}: {given}}}"
    if any(issubclass(model, Target) for model in models):
        name = given if isinstance(given, str) and ":" in given else "module:attribute"
        return f': {{target: "{name}", args: {{…}}}}'
    known = list(dict.fromkeys(key for model in models for key in _fields(model)))
    more = " …" if len(known) > MAX_KEYS else ""
    return f" of {', '.join(known[:MAX_KEYS])}{more}" if known else ""


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"


def _of_several_fields(text: str, field: str) -> str:
    """The error of a check over several fields; it may begin with a field's name in the group."""
    if not field:
        return text
    return f"{field}.{text}" if _NAMED.match(text) else f"{field}: {text}"


def _kinds(location: Location, root: Root) -> list[str]:
    """The kinds of a group that has several, in their order."""
    models: list[Root] = [root]
    for part in location:
        models = _step(models, part)
    return [str(_kind_of(model)) for model in models]


def _tags(problem: ErrorDetails) -> str:
    return str(problem.get("ctx", {}).get("expected_tags", "")).replace("'", "")


def _unknown_key(location: Location, field: str, root: Root) -> str:
    known = sorted(_known_keys(location[:-1], root))
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
    if _is_branch(part, models):
        return [model for model in models if model.__name__ == part]
    models_below: list[Root] = []
    for model in models:
        field = _fields(model).get(str(part))
        if field is not None:
            models_below.extend(_models(field.annotation))
    return models_below if models_below or not isinstance(part, int) else models


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    if field is None:
        return None
    choices = _choices(field.annotation)
    return choices[0] if field.is_required() and len(choices) == 1 else field.default


def _choices(annotation: Any) -> list[Any]:
    """What stands in the `Literal`s of a type."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return [*arguments]
    return [choice for argument in arguments for choice in _choices(argument)]


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the names that a config gives them: `from` is no name in Python."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _known_keys(location: Location, root: Root) -> set[str]:
    models: list[Root] = [root]
    for part in location:
        models = _step(models, part)
    return {key for model in models for key in _fields(model)}


_VERBS = ("returns ", "replaces ", "ends ")
"""With which some descriptions of fields begin."""


def _help(location: Location, root: Root) -> str:
    field: FieldInfo | None = None
    models: list[Root] = [root]
    for part in location:
        found = next((_fields(model)[part] for model in models if part in _fields(model)), None)
        if found is None and not isinstance(part, int) and not _is_branch(part, models):
            found = FieldInfo()  # a key of its own, which has no description
        field = found or field
        models = _step(models, part)
    if field is None or not field.description:
        return "see the reference of the config"
    verb = "" if field.description.startswith(_VERBS) else "is "
    return f"it {verb}{field.description}"


def _field_name(location: Location, root: Root) -> str:
    """The field as the user wrote it: without the tag that a union adds to the location."""
    parts: list[str] = []
    models: list[Root] = [root]
    for part in location:
        is_tag = any(_kind_of(model) == part for model in models) and len(models) > 1
        is_tag = is_tag or _is_branch(part, models)
        models = _step(models, part)
        if not is_tag:
            parts.append(f"[{part}]" if isinstance(part, int) else _shown(str(part)))
    return ".".join(parts).replace(".[", "[")
