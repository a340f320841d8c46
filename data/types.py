"""Types that many packages use: the base of configs, targets, batches. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)
from pydantic_core import CoreSchema

from epochal.data.hashing import (
    SIGNIFICANT_DIGITS,
    as_uniform,
    hash_repeated,
    hash_u64,
    hash_uniform,
    seed_64,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = [
    "AS_WRITTEN",
    "Args",
    "Batch",
    "Frozen",
    "Target",
    "TargetName",
    "Value",
    "Window",
    "as_uniform",
    "from_json",
    "hash_repeated",
    "hash_u64",
    "hash_uniform",
    "in_json",
    "seed_64",
]


MAX_INTEGER = 1 << 53
"""Of a field without a bound of its own: JSON's readers keep no larger whole number exactly."""


def _make_strict(schema: Any, own: type[BaseModel]) -> None:
    """Makes every number in the schema of the model `own` strict; parts of it have made theirs."""
    if isinstance(schema, list | tuple):
        for part in schema:
            _make_strict(part, own)
    elif isinstance(schema, dict):
        kind = schema.get("type")
        if kind == "model" and schema["cls"] is not own and issubclass(schema["cls"], Frozen):
            return
        if kind in {"int", "float", "bool"}:
            schema["strict"] = True
        if kind == "int" and not {"le", "lt"} & {*schema}:
            schema["le"] = MAX_INTEGER
        for name, part in schema.items():
            if name not in {"default", "metadata", "serialization"}:
                _make_strict(part, own)


class Frozen(BaseModel):
    """A part of the config: immutable, refuses unknown keys, finite numbers only.

    A text is no number and no truth value, `true` is no 1, and 2.0 is no number of something;
    a whole number is good where a float is asked for.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # until the first value: a command builds the model that it reads
        hide_input_in_errors=True,  # Prefect logs the text of an error; our own shows the field's
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's schema with strict numbers. Strict tuples would refuse the lists of YAML."""
        schema = handler(source)
        _make_strict(schema, cls)
        return schema

    def not_as_usual(self) -> dict[str, Any]:
        """The fields that have another value than their default, of a config of plain values.

        What a dump without the defaults has; that would build the model once more for itself.
        """
        fields = type(self).model_fields
        return {name: value for name, value in self if value != fields[name].default}

    @classmethod
    def as_usual(cls, **given: Any) -> Self:
        """A value with every field that is not given as usual, for a default of another field.

        Nothing of what is given is checked: that would build the model as its module is imported.
        """
        return cls.model_construct(**given)  # type: ignore[return-value]  # its plugin says Frozen


AS_WRITTEN = "as written"
"""The context of validation in which arguments are what a person wrote, not what `in_json` made."""
_NUMBER, _KEY = "epochal:number", "epochal:key:"
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_PREFECTS = frozenset({"$ref", "__prefect_kind"})
"""Keys by which Prefect takes a mapping in a flow's parameters for a reference to something."""


def in_json(value: Any) -> Any:
    """A user's argument as JSON that every reader leaves as it is; `from_json` gives it back.

    Numbers that JSON lacks are `{"epochal:number": "nan"}`; a key that Prefect would act on has
    `epochal:key:` before it. Anything else is itself.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {_NUMBER: str(value)}
    if isinstance(value, Mapping):
        return {
            f"{_KEY}{key}" if key in _PREFECTS or key.startswith("epochal:") else key: in_json(item)
            for key, item in value.items()
        }
    return [in_json(item) for item in value] if isinstance(value, list | tuple) else value


def from_json(value: Any) -> Any:
    """What `in_json` was given."""
    if isinstance(value, Mapping):
        if [*value] == [_NUMBER] and value[_NUMBER] in _NUMBERS:
            return _NUMBERS[value[_NUMBER]]
        return {
            key.removeprefix(_KEY) if isinstance(key, str) else key: from_json(item)
            for key, item in value.items()
        }
    return [from_json(item) for item in value] if isinstance(value, list | tuple) else value


def in_key(args: Mapping[str, Any]) -> dict[str, Any]:
    """A user's arguments as a key holds them: other arguments are another value.

    Keys are digests of JSON with sorted names and numbers of 12 digits, which is right for what a
    config says itself. A user's code may go by the order of a mapping, and by every digit.
    """
    return {name: _told_apart(value) for name, value in in_json(args).items()}


def _told_apart(value: Any) -> Any:
    if isinstance(value, float) and float(f"{value:.{SIGNIFICANT_DIGITS}g}") != value:
        return {"epochal:float": repr(value)}
    if isinstance(value, Mapping):
        apart = {key: _told_apart(item) for key, item in value.items()}
        return apart if [*value] == sorted(value) else {**apart, "epochal:order": [*value]}
    return [_told_apart(item) for item in value] if isinstance(value, list) else value


def _given(value: Any, info: ValidationInfo) -> Any:
    return value if info.context == AS_WRITTEN else from_json(value)


def _is_plain(value: Any) -> Any:
    """The value, if YAML or JSON can write it. Pydantic's `JsonValue` would refuse NaN here."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                message = f"the key {key!r:.60} is no text"
                raise ValueError(message)  # noqa: TRY004 - what pydantic expects of a validator
            _is_plain(item)
    elif isinstance(value, list):
        for item in value:
            _is_plain(item)
    elif not isinstance(value, str | int | float | None):
        message = f"a {type(value).__name__} cannot be written in a config"
        raise ValueError(message)  # noqa: TRY004 - of which pydantic makes its own error
    return value


_HANDED_ON = (BeforeValidator(_given), AfterValidator(_is_plain), PlainSerializer(in_json))
Value = Annotated[Any, *_HANDED_ON]
"""A value that goes to the user's code as it is written."""
Args = Annotated[dict[str, Any], *_HANDED_ON]
"""Keyword arguments that go to the user's code as they are written; every dump is `in_json`."""


MAX_NAME_CHARS = 200  # of one part: no file system holds a module of a longer name


def _check_target_name(name: str) -> str:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        message = f"{name!r:.80} is not of the form 'package.module:attribute'"
        raise ValueError(message)
    if max(map(len, parts)) > MAX_NAME_CHARS or len(name) > 10 * MAX_NAME_CHARS:
        message = (
            f"a target of {len(name)} characters; expected at most {10 * MAX_NAME_CHARS}, and "
            f"{MAX_NAME_CHARS} of each part"
        )
        raise ValueError(message)
    return name


TargetName = Annotated[str, AfterValidator(_check_target_name)]


class Target(Frozen):
    """Something of the user's or of a library's that is called with arguments."""

    target: TargetName = Field(
        examples=["model:SmallConvNet", "torch.nn:CrossEntropyLoss"],
        description="`module:attribute`; the module is looked for beside the config first",
    )
    args: Args = Field(
        default_factory=dict,
        description="keyword arguments of the call; a text that starts with ./ or ../ is a path "
        "relative to the config's folder",
    )
    files: tuple[str, ...] = Field(
        default=(),
        description="files or folders that it reads beside those that `args` names as ./ paths, "
        "relative to the config's folder, or addresses: their content is in the keys",
        examples=[["./vocabulary.json"]],
    )

    @field_validator("files")
    @classmethod
    def _named(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for name in files:
            if not name.strip() or "\0" in name:
                raise ValueError(f"{name!r} names no file")
        return files


@dataclass(frozen=True, slots=True)
class Window:
    """The update that a micro-batch belongs to.

    num_samples: samples of the whole update, over all its micro-batches.
    last: whether the optimizer steps after this micro-batch.
    position, count: which of how many micro-batches of the update this one is, from 0.
    """

    num_samples: int
    last: bool
    position: int = 0
    count: int = 1


@dataclass(slots=True)  # not frozen: made at each step, and four times as fast like this
class Batch:
    """One micro-batch.

    data: what the data set's items were collated to: `(input, target)` or a dict.
    sample_ids_B: int64 of shape (B,).
    weights_B: float32 tensor of shape (B,), or None where every weight is one.
    index: micro-step within the epoch, from 0.
    window: the update it belongs to.
    repeats_B: how often each sample came before in this epoch, int64 of shape (B,), or None where
    none did. size_HW: height and width of the images that are trained on; None: as they are.
    """

    data: Any
    sample_ids_B: npt.NDArray[np.int64]
    window: Window
    index: int = 0
    weights_B: torch.Tensor | None = field(default=None)
    repeats_B: npt.NDArray[np.int64] | None = field(default=None)
    size_HW: tuple[int, int] | None = None

    @property
    def num_samples(self) -> int:
        """Samples in this micro-batch; 0 where a process has none of an update."""
        return int(self.sample_ids_B.shape[0])
