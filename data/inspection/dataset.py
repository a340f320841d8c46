"""A data set that was opened, with what is known of it: ids, labels, digest of its content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field

from epochal.data.inspection.item_reader import BadSample
from epochal.data.inspection.seen import NUM_SEEN, SeenItem
from epochal.data.inspection.told import is_unread
from epochal.data.types import Frozen

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.loading.order import Ids


class DatasetInfo(Frozen):
    """What is remembered of a data set that was read.

    seconds: how long reading it took; over 10 it is not read again at each start. unequal_at:
    position of the first item of another form than the first one's, None where there is none.
    stamp: of the files that its args name, as they were when it was read; None where they name
    none. class_names: by label; None: not known. has_paths: whether the data set tells the files of
    its samples. text_ids: sha256 of the table of its samples' text ids; None where ids are
    numbers, or the table is not kept. samples: likewise of the table of ids and labels, kept where
    reading them again would take long. seen: what some items were. told: the fingerprint that the
    data set itself told. Samples that cannot be trained on and are left out: num_bad of them, which
    `num_samples` does not count; without, the digest of their positions; bad, the sha256 of the
    table of them. blocks, lengths: digests of these, where an order has gone by them.
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
    samples: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    seen: list[SeenItem] = Field(default=[], max_length=NUM_SEEN)
    told: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    num_bad: int = Field(default=0, ge=0)
    without: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    bad: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    blocks: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    lengths: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


@dataclass
class OpenDataset:
    """One data set of a run. field: of the config, for messages.

    make: makes an object of it, equal to any other. Those that train and evaluate begin with one
    that nobody has read from: a file that an item has opened would be shared through a fork.
    bad: the samples that are left out; `dataset` is without them, and positions are its own.
    inputs_N: a checksum of each sample's input, uint64 of shape (N,), None where it was not read.
    sample_ids_N: int64 of shape (N,); labels_N: int64 of shape (N,), or None where unknown.
    """

    field: str
    make: Callable[[], Any]
    info: DatasetInfo
    fingerprint: str
    read_ids_N: npt.NDArray[np.int64] | None
    labels_N: npt.NDArray[np.int64] | None
    inputs_N: npt.NDArray[np.uint64] | None = None
    bad: Sequence[BadSample] = ()

    @cached_property
    def dataset(self) -> Any:
        """What the passes read, and their workers after a fork."""
        looked = self.__dict__.get("looked")
        return looked if looked is not None and is_unread(looked) else self.make()

    @cached_property
    def looked(self) -> Any:
        """What describes, previews and checks, in this process."""
        made = self.__dict__.get("dataset")
        return made if made is not None and is_unread(made) else self.make()

    def forget_looked(self) -> None:
        """Gives the memory back that `looked` takes; it is made again where it is used again."""
        self.__dict__.pop("looked", None)

    @cached_property
    def sample_ids_N(self) -> npt.NDArray[np.int64]:
        """The ids of the samples, by position."""
        import numpy as np

        if self.info.index_ids:
            return np.arange(self.info.num_samples, dtype=np.int64)
        assert self.read_ids_N is not None
        return self.read_ids_N

    @property
    def ids_N(self) -> Ids:
        """The same without an array, where there are many and they are the positions."""
        from epochal.data.loading.lazy_order import LAZY_ROWS
        from epochal.data.loading.order import Positions

        count = self.info.num_samples
        return Positions(count) if self.info.index_ids and count > LAZY_ROWS else self.sample_ids_N

    @cached_property
    def classes_N(self) -> npt.NDArray[np.int64]:
        """The class of each sample, by position; read where unknown. Raises DataError."""
        from epochal.data.inspection.labels import class_labels  # reads items: not for `plan`

        return class_labels(
            self.looked, count=self.info.num_samples, read_N=self.labels_N, name=self.field
        )
