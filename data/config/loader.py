"""Config of the loader; those of data sets and of sampling beside it. Pure pydantic; no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from epochal.data.config.dataset import DataConfig
from epochal.data.config.sampling import SamplingConfig
from epochal.data.types import Frozen, Target

__all__ = ["COLLATE", "DataConfig", "LoaderConfig", "SamplingConfig"]

MAX_WORKERS = 256
MAX_PREFETCH = 1024
COLLATE = "loader.collate"
"""The field's place in a config, in keys and in errors."""


class LoaderConfig(Frozen):
    """How samples become batches."""

    batch_size: int = Field(
        ge=1,
        description="samples in a micro-batch: one forward and backward pass; an update has "
        "`gradients.accumulate` of them. No default: the learning rate belongs to it",
        examples=[64],
    )
    validation_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="samples in a batch of the validation; none: `batch_size`, which is known to "
        "fit into the memory",
    )
    drop_last: bool = Field(
        default=False,
        description="leave out the last micro-batch of an epoch if it is incomplete (for layers "
        "that fail on a single sample); off, because every sample should count",
    )
    workers: Annotated[int, Field(ge=0, le=MAX_WORKERS)] | Literal["auto"] = Field(
        default=0,
        description="processes that load items; 0: the training process itself, which is fastest "
        "for data in memory; auto: whichever of threads, processes and the training process reads "
        "the first batches fastest. Changes no number and is in no stage key",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=MAX_WORKERS,
        description="threads of the training process that load items, in place of workers: less "
        "work for images, whose decoders let go of the interpreter. For data sets that say "
        "`thread_safe`. Changes no number and is in no stage key",
    )
    prefetch: int = Field(
        default=2,
        ge=1,
        le=MAX_PREFETCH,
        description="micro-batches that each worker or thread loads ahead: so much of the data "
        "is in memory beside the one that is trained on. Changes no number and is in no stage key",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="in training, the most that the longest sample of a micro-batch times their "
        "number may be, of the lengths that the data set tells; `batch_size` is then the most "
        "samples. The number of updates differs from epoch to epoch. none: `batch_size` samples",
        examples=[8192],
    )
    epoch_samples: int | None = Field(
        default=None,
        ge=1,
        description="samples of an epoch, for those who count in samples or updates: each goes on "
        "where the one before it ended, through one permutation of the data after the other. none: "
        "all samples, each once",
        examples=[1_000_000],
    )
    collate: Target | None = Field(
        default=None,
        description="makes the batch of a micro-batch's items: a function that takes their list, "
        "or a class whose objects do, such as a collator of Hugging Face; "
        "`epochal.data.loading.collate:pad` pads items of different lengths. In training, "
        "validation and scoring. none: as torch's `default_collate` does",
    )

    on_bad_sample: Literal["raise", "quarantine"] = Field(
        default="raise",
        description="what happens with a sample that cannot be read, has another form or kind of "
        "label than the others, or holds numbers that are not finite. raise: the run fails and "
        "names it. quarantine: every sample is read once before the start; bad ones are left out, "
        "listed, and part of the keys",
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="with `quarantine`: share of a data set's samples that may be bad; with more "
        "the run does not start",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.threads and self.workers:
            raise ValueError(
                f"loader.threads: found {self.threads}, and loader.workers: {self.workers}; items "
                "are loaded by threads or by processes: leave one out"
            )
        if self.batch_tokens is not None and self.drop_last:
            raise ValueError(
                "drop_last: with batch_tokens micro-batches differ in size, and the last is as "
                "complete as any; leave it out"
            )
        return self

    def key_slice(self) -> dict[str, Any]:
        """What a key of an epoch's training holds."""
        given = {"batch_tokens": self.batch_tokens, "epoch_samples": self.epoch_samples}
        return {
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            **{name: value for name, value in given.items() if value is not None},
        }

    def num_updates(self, num_samples: int, *, accumulate: int) -> int:
        """Updates of an epoch that trains on that many samples."""
        whole, rest = divmod(num_samples, self.batch_size)
        micro_steps = whole + (1 if rest and not (self.drop_last and whole) else 0)
        return -(-micro_steps // accumulate)
