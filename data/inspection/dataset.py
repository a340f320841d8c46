"""A data set that was opened, with what is known of it: ids, labels, digest of its content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from epochal.data.types import Frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class DatasetInfo(Frozen):
    """What is remembered of a data set that was read.

    seconds: how long reading it took; over 10 it is not read again at each start. unequal_at:
    position of the first item of another form than the first one's, None where there is none.
    stamp: of the files that its args name, as they were when it was read; None where they name
    none. class_names: by label; None: not known. has_paths: whether the data set tells the files of
    its samples. text_ids: sha256 of the table of its samples' text ids; None where ids are
    numbers, or the table is not kept.
    """

    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    num_samples: int = Field(ge=1)
    seconds: float = Field(ge=0, le=1e9)
    index_ids: bool
    label_min: int | None = None
    label_max: int | None = None
    unequal_at: int | None = Field(default=None, ge=1)
    stamp: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    class_names: list[str] | None = None
    has_paths: bool = False
    text_ids: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


@dataclass
class OpenDataset:
    """One data set of a run. field: of the config, for messages.

    inputs_N: a checksum of each sample's input, uint64 of shape (N,), None where it was not read.
    sample_ids_N: int64 of shape (N,); labels_N: int64 of shape (N,), or None where unknown.
    """

    field: str
    dataset: Any
    info: DatasetInfo
    fingerprint: str
    read_ids_N: npt.NDArray[np.int64] | None
    labels_N: npt.NDArray[np.int64] | None
    inputs_N: npt.NDArray[np.uint64] | None = None

    @cached_property
    def sample_ids_N(self) -> npt.NDArray[np.int64]:
        """The ids of the samples, by position."""
        import numpy as np

        if self.info.index_ids:
            return np.arange(self.info.num_samples, dtype=np.int64)
        assert self.read_ids_N is not None
        return self.read_ids_N

    @cached_property
    def classes_N(self) -> npt.NDArray[np.int64]:
        """The class of each sample, by position; read where unknown. Raises DataError."""
        from epochal.data.inspection.labels import class_labels  # reads items: not for `plan`

        return class_labels(
            self.dataset, count=self.info.num_samples, read_N=self.labels_N, name=self.field
        )
