"""What a trainer has in hand: the user's parts and data, an order, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.records import StageRecord, load_record
from epochal.tasks.computing.link import Link, PutDown, is_told, obey, told
from epochal.tasks.config.run import RunConfig
from epochal.tasks.goodput.stage import StageGoodput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from epochal.data.inspection.dataset import OpenDataset
    from epochal.data.loading.readers import Readers
    from epochal.engine.shards.group import Group
    from epochal.tasks.user_code.components import Components


@dataclass
class Work:
    """One run in its trainer. data: field of the config → data set.

    touched: whether the components have changed since they were built. goodput: by the clock, what
    the time goes into. group: of the processes that share the run's updates; None: this one alone.
    """

    config: RunConfig
    link: Link
    device: torch.device
    data: Mapping[str, OpenDataset] = field(default_factory=dict)
    components: Components | None = None
    touched: bool = False
    goodput: StageGoodput = field(default_factory=StageGoodput)
    group: Group | None = None
    measured: Readers | None = None

    def readers(
        self, of: str, *, batch_size: int, rows_K: npt.NDArray[np.int64] | None = None
    ) -> Readers:
        """Who reads the items of a run, asked for the data set of the field `of`.

        rows_K: the first positions in the order in which they are read; None: in their own. With
        `loader.workers: auto` each process measures it on the first of them, once, and the first
        process says it.
        """
        import numpy as np

        from epochal.data.loading.items import is_thread_safe
        from epochal.data.loading.readers import MEASURED_ROWS, Readers, measured_readers

        loader, pin = self.config.loader, self.device.type == "cuda"
        if loader.workers != "auto":
            return Readers(loader.workers, loader.threads, loader.prefetch, pin)
        if self.measured is None:
            first_K = np.arange(min(self.data[of].info.num_samples, MEASURED_ROWS))
            found = measured_readers(
                self.data[of].dataset,
                first_K if rows_K is None else rows_K,
                sample_ids_N=self.data[of].ids_N,
                batch_size=batch_size,
                processes=self.config.launch.processes_here,
                threads=all(is_thread_safe(one.dataset) for one in self.data.values()),
                collate=self.ready_components().collate,
                ahead=pin,
            )
            if found is None:  # tensors
                return Readers()
            if self.leads:
                self.link.notice(f"loader.workers: auto: {of} is read by {found.words}")
            self.measured = found.readers
        return replace(self.measured, prefetch=loader.prefetch, pin=pin)

    @property
    def leads(self) -> bool:
        """Whether this process tells what comes of the work."""
        return self.group is None or self.group.first

    @property
    def share(self) -> dict[str, int]:
        """Which of several processes this is, for `validation_batches`."""
        if self.group is None:
            return {}
        return {"rank": self.group.rank, "processes": self.group.size}

    def num_batches(self, of: str, *, batch_size: int) -> int:
        """How many batches a process reads of the data set of the field `of`, once through."""
        batches = -(-len(self.data[of].ids_N) // batch_size)
        return batches if self.group is None else -(-batches // self.group.size)

    def told(self, number: int) -> int:
        """The number that the first process of the group gives; all of it call this."""
        return number if self.group is None else self.group.exchange.told(number)

    def asked(self, question: str, **given: Any) -> Any:
        """What the first process was answered; all of the group call this."""
        answer = self.link.ask(question, **given) if self.leads else None
        return answer if self.group is None else self.group.exchange.told_document(answer)

    def local_file(self, path: str) -> str:
        """A file that the first process was told of, as this one can read it: maybe a copy."""
        answer: str = self.link.ask("file", path=path)
        return answer

    def obey(self) -> None:
        """Raises PutDown, in all processes, if the work is to be put down here."""
        if self.group is None:
            obey(self.link)
        elif self.told(self.link.interrupted or self.link.stopped):
            raise PutDown
        else:
            self.link.alive()

    def ready_components(self) -> Components:
        """Model, optimizer and step; built at first use."""
        if self.components is None:
            from epochal.tasks.user_code.components import build_components

            if self.group is None or not self.group.in_turns:
                self.components = build_components(self.config, device=self.device)
            else:
                self.components = self._components_in_slices(self.group)
            self.touched = False
        return self.components

    def _components_in_slices(self, group: Group) -> Components:
        """As `build_components`, with this process's slices of the state; all of the group call it.

        The model is built in the host's memory as a whole, and comes to the device block by block.
        """
        import torch

        from epochal.engine.shards.shard_state import shard_state
        from epochal.tasks.user_code.components import build_components

        host = torch.device("cpu")
        components = build_components(self.config, device=self.device, model_on=host)
        group.model = shard_state(
            components.state,
            group.exchange,
            device=self.device,
            shards=group.shards,
            class_names=self.config.launch.shard_blocks,
        )
        return components


@dataclass(frozen=True)
class Order:
    """A stage to compute. parents: role → record of the stages that are loaded.

    inputs: as the stage's key holds them. signs: store and run, whose sign of life is left on this
    machine; None: no sign. live: whether the trainer's state is the checkpoint of
    the role `parent`. given: what else its kind needs.
    """

    kind: str
    epoch: int | None
    key: str
    inputs: Mapping[str, Any]
    parents: Mapping[str, StageRecord]
    live: bool
    given: Mapping[str, Any]
    signs: Sequence[str] | None = None

    @property
    def number(self) -> int:
        """The epoch of a stage that belongs to one."""
        assert self.epoch is not None, self.kind
        return self.epoch

    @classmethod
    def of_document(cls, body: Mapping[str, Any]) -> Order:
        """From plain JSON, in which records are the texts of their files."""
        parents = {
            role: load_record(text.encode(), name=role, key=key)
            for role, (key, text) in body["parents"].items()
        }
        return cls(**{**body, "parents": parents})


@dataclass(frozen=True)
class Computed:
    """What came of an order. values: of the record.

    tensors: artifact → its tensors by name. documents: artifact → plain JSON. columns: table →
    column → array of shape (rows,). files: artifact → a file that was written. side: name of a file
    beside the record → its body. facts: what the orchestration wants to know beside.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, npt.NDArray[Any]]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    side: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class ParentArtifacts:
    """The artifacts of an order's parents, which the orchestration has checked.

    Has of a `StageStore` what reading a checkpoint needs.
    """

    def __init__(self, link: Link, order: Order) -> None:
        self._link = link
        self._roles = {record.key: role for role, record in order.parents.items()}

    @contextmanager
    def fetch_artifact(self, record: StageRecord, name: str) -> Iterator[Path]:
        """A local file with the artifact. Raises CorruptObject, also where the block does.

        Then the bytes have the digest of the record and are wrong all the same.
        """
        role = self._roles[record.key]
        path = self._link.ask("fetch", role=role, name=name)
        try:
            yield Path(path)
        except CorruptObject as error:
            if is_told(error):  # of another artifact, which was open in the block
                raise
            raise self.reject(record, name, error) from error
        finally:
            self._link.ask("release", path=path)

    def read_artifact(self, record: StageRecord, name: str, *, max_bytes: int) -> bytes:
        """The artifact's bytes. Raises CorruptObject."""
        role = self._roles[record.key]
        return self._link.ask_bytes("read", role=role, name=name, max_bytes=max_bytes)

    def reject(self, record: StageRecord, name: str, error: CorruptObject) -> CorruptObject:
        """Has the artifact set aside, whose digest is right and whose content is not."""
        role = self._roles[record.key]
        text = self._link.ask("reject", role=role, name=name, reason=str(error))
        return told(CorruptObject(text))
