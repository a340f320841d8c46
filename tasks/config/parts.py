"""Config of a run that starts from weights that are there. Pure pydantic; reads nothing."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import Field, field_validator, model_serializer, model_validator

from epochal.data.types import Frozen

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"})
SAFE = ".safetensors"


class StartConfig(Frozen):
    """The weights that a run starts from, instead of the model's own initial ones."""

    source: str = Field(
        alias="from",
        min_length=1,
        description="a path or address of a .safetensors file, or a run: NAME, STORE/NAME, with "
        "@GENERATION and :EPOCH (or :best) behind it",
        examples=["./pretrained.safetensors", "digits@1:9", "s3://bucket/store/digits:best"],
    )
    strict: bool = Field(
        default=True,
        description="whether all names must agree, but for those that `allow_missing` and "
        "`allow_unexpected` name; shapes must agree in any case",
    )
    allow_missing: tuple[str, ...] = Field(
        default=(),
        description="patterns of names that may be missing in the file, or be of another shape "
        "there: they keep the initial weights, such as a new head's: [head.*]",
    )
    allow_unexpected: tuple[str, ...] = Field(
        default=(), description="patterns of names in the file that the model may lack"
    )

    @field_validator("source")
    @classmethod
    def _no_pickle(cls, source: str) -> str:
        suffix = PurePosixPath(source).suffix.lower()
        if suffix in PICKLES:
            raise ValueError(
                f"{source!r} is a pickle, which may run code when it is read; convert it once, "
                "where you trust it: safetensors.torch.save_file(torch.load(path, "
                f"weights_only=True), 'weights{SAFE}')"
            )
        return source

    @model_validator(mode="after")
    def _lists_act(self) -> Self:
        if not self.strict and (self.allow_missing or self.allow_unexpected):
            raise ValueError(
                "strict: false allows every difference of names; leave allow_missing and "
                "allow_unexpected out, or strict"
            )
        return self

    @model_serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "strict": self.strict,
            "allow_missing": list(self.allow_missing),
            "allow_unexpected": list(self.allow_unexpected),
        }

    @property
    def is_file(self) -> bool:
        """Whether `from` is a file, or else a run."""
        return self.source.lower().endswith(SAFE)

    def key_slice(self) -> dict[str, Any]:
        """What acts on numbers beside the file's content; where it lies does not."""
        return {
            name: value
            for name, value in self._as_written().items()
            if name != "from" and value not in ([], True)
        }
