"""Types that many packages use: the base of configs, targets, batches. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, field_validator

from epochal.data.hashing import as_uniform, hash_repeated, hash_u64, hash_uniform, seed_64

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = [
    "Batch",
    "Frozen",
    "Target",
    "TargetName",
    "Window",
    "as_uniform",
    "hash_repeated",
    "hash_u64",
    "hash_uniform",
    "seed_64",
]


class Frozen(BaseModel):
    """A part of the config: immutable, refuses unknown keys, finite numbers only."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # Prefect logs the text of an error; our own shows the field's
    )


_MAX_NAME = 200  # with the suffix of a file: file systems take 255 bytes


def _check_target_name(name: str) -> str:
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        message = f"{name!r} is not of the form 'package.module:attribute'"
        raise ValueError(message)
    if max(map(len, parts)) > _MAX_NAME:
        message = f"a name in it has more than {_MAX_NAME} characters"
        raise ValueError(message)
    return name


TargetName = Annotated[str, Field(max_length=500), AfterValidator(_check_target_name)]


class Target(Frozen):
    """Something of the user's or of a library's that is called with arguments."""

    target: TargetName = Field(
        examples=["model:SmallConvNet", "torch.nn:CrossEntropyLoss"],
        description="`module:attribute`; the module is looked for beside the config first",
    )
    args: dict[str, JsonValue] = Field(
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
    """

    num_samples: int
    last: bool


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
        """Samples in this micro-batch."""
        return int(self.sample_ids_B.shape[0])
