"""Config of a data set: the call that returns it, and what says that its content has changed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt, StrictStr

from epochal.data.types import Frozen, Target


class DataConfig(Target):
    """A call that returns a map-style data set, and what says that its content has changed."""

    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="names the content, so that it need not be read to know it: it replaces "
        "content, source and `files` in the keys; change it whenever the data changes. none: the "
        "content is read",
        examples=["2024-05-01"],
    )
    files: tuple[str, ...] = Field(
        default=(),
        description="files or folders that the data comes from, relative to the config's folder, "
        "or addresses: their sizes and times of change say when it must be read again",
        examples=[["./images.npy"]],
    )


PartName = Annotated[StrictStr, Field(min_length=1)] | Annotated[StrictInt, Field(ge=0)]


class BatchNames(Frozen):
    """Which parts of an item the default step takes."""

    input: PartName = Field(
        description="what the model is given: an item's key, or its place in a tuple, from 0",
        examples=["samples", 0],
    )
    target: PartName = Field(
        description="what the loss compares the output with", examples=["targets", 2]
    )
