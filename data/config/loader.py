"""Config of the loader; those of data sets and of sampling beside it. Pure pydantic; no torch."""

from __future__ import annotations

from pydantic import Field

from epochal.data.config.dataset import DataConfig
from epochal.data.config.sampling import SamplingConfig
from epochal.data.types import Frozen

__all__ = ["DataConfig", "LoaderConfig", "SamplingConfig"]

MAX_WORKERS = 256


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
    workers: int = Field(
        default=0,
        ge=0,
        le=MAX_WORKERS,
        description="processes that load items; 0: the training process itself, which is fastest "
        "for data in memory. Changes no number and is in no stage key",
    )

    def num_updates(self, num_samples: int, *, accumulate: int) -> int:
        """Updates of an epoch that trains on that many samples."""
        whole, rest = divmod(num_samples, self.batch_size)
        micro_steps = whole + (1 if rest and not (self.drop_last and whole) else 0)
        return -(-micro_steps // accumulate)
