"""Config of a data set: the call that returns it, and what says that its content has changed."""

from __future__ import annotations

from pydantic import Field

from epochal.data.types import Target


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
