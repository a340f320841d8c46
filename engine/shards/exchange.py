"""What processes of one group send each other: small documents, and tensors with them.

The group is known to nobody else: torch's default group is left alone, since libraries that see one
(torchmetrics, samplers) would act as if the run were theirs to divide. All calls are made by every
process of the group, in the same order.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from epochal.data.errors import PeerLost

Document = Any
"""Plain JSON."""
Given = tuple[Document, list[Tensor]]
PATIENCE = dt.timedelta(days=7)
"""Nobody gives up here: whoever started the processes sees one that is gone, or hangs."""
_ALIGNED = 16  # bytes: at such an offset lies any kind of number


def join(store: Any, rank: int, size: int, *, device: torch.device, hostname: str) -> Exchange:
    """Meets the other processes. store: of torch.distributed, the same for all.

    hostname: the address of this process, by which the others reach it.
    """
    torchs: Any = torch.distributed  # its stubs do not have all of it
    options = torchs.ProcessGroupGloo._Options()  # noqa: SLF001 - there is no public name
    options._timeout = PATIENCE  # noqa: SLF001 - likewise
    options._devices = [torchs.ProcessGroupGloo.create_device(hostname=hostname)]  # noqa: SLF001 - likewise
    with _peers():
        beside = torchs.PrefixStore("host", store)
        host = torchs.ProcessGroupGloo(beside, rank, size, options)
        accelerator = None
        if device.type == "cuda":
            beside = torchs.PrefixStore("accelerator", store)
            accelerator = torchs.ProcessGroupNCCL(beside, rank, size, PATIENCE)
    return Exchange(rank, size, device, host, accelerator)


@dataclass
class Exchange:
    """The way from one process to all others of its group.

    host: torch's process group for tensors in memory; accelerator: for those of `device`, or None.
    """

    rank: int
    size: int
    device: torch.device
    _host: Any
    _accelerator: Any = None
    _known: list[dict[int, Document]] = field(default_factory=list)
    """Of each rank, the documents that it has sent, by their numbers."""

    def __post_init__(self) -> None:
        self._known = [{} for _ in range(self.size)]

    def told(self, number: int) -> int:
        """The number that the first process gives; what the others give is not looked at."""
        tensor = torch.tensor([number])
        with _peers():
            self._host.broadcast(tensor, 0).wait()
        return int(tensor[0])

    def gather_number(self, number: int) -> list[int]:
        """The number of each process, by rank."""
        return [int(one) for one in self._gathered(torch.tensor([number]))]

    def told_document(self, document: Document) -> Document:
        """The document that the first process gives."""
        data = json.dumps(document if self.rank == 0 else None).encode()
        length = self.told(len(data))
        tensor = _of_bytes(data) if self.rank == 0 else torch.empty(length, dtype=torch.uint8)
        with _peers():
            self._host.broadcast(tensor, 0).wait()
        return json.loads(tensor.numpy().tobytes())

    def gather(self, document: Document, tensors: Sequence[Tensor] = ()) -> list[Given]:
        """What each process gives, by rank. Costs least where documents and shapes come again."""
        layouts, payload, short = self._announced(document, tensors)
        longest = max(_length(layout) for layout in layouts)
        if any(layout["accelerator"] for layout in layouts):
            payload = payload.to(self.device)  # of a process that has no tensors to send
        elif longest <= _SHORT:
            pairs = zip(layouts, short, strict=True)
            return [(layout["document"], _unpacked(layout, one)) for layout, one in pairs]
        padded = torch.zeros(longest, dtype=torch.uint8, device=payload.device)
        padded[: len(payload)] = payload
        received = [torch.empty_like(padded) for _ in range(self.size)]
        with _peers():
            self._of(padded).allgather([received], [padded]).wait()
        pairs = zip(layouts, received, strict=True)
        return [(layout["document"], _unpacked(layout, one)) for layout, one in pairs]

    def gather_first(
        self, document: Document, tensors: Sequence[Tensor] = ()
    ) -> list[Given] | None:
        """As `gather`, for the first process alone; the others get None."""
        layouts, payload, _ = self._announced(document, tensors)
        if self.rank:
            self.exchange([(0, payload)], [])
            return None
        received = [payload]
        for layout in layouts[1:]:
            place = self.device if layout["accelerator"] else "cpu"
            received.append(torch.empty(_length(layout), dtype=torch.uint8, device=place))
        self.exchange([], [(rank, one) for rank, one in enumerate(received) if rank])
        pairs = zip(layouts, received, strict=True)
        return [(layout["document"], _unpacked(layout, one)) for layout, one in pairs]

    def exchange(
        self, sent: Sequence[tuple[int, Tensor]], got: Sequence[tuple[int, Tensor]]
    ) -> None:
        """Sends tensors to ranks and fills others, all at once."""
        self.begin(sent, got)()

    def begin(
        self, sent: Sequence[tuple[int, Tensor]], got: Sequence[tuple[int, Tensor]]
    ) -> Callable[[], None]:
        """Begins to send tensors to ranks and to fill others; gives what waits for all of them."""
        tensors = [tensor for _, tensor in (*sent, *got) if tensor.numel()]
        if not tensors:
            return lambda: None
        group = self._of(tensors[0])
        together = group is self._accelerator
        with _peers():
            if together:  # else two that send to each other would wait for ever
                group._start_coalescing(tensors[0].device)  # noqa: SLF001 - `dist` calls it so
            works = [
                *(group.send([tensor], rank, 0) for rank, tensor in sent if tensor.numel()),
                *(group.recv([tensor], rank, 0) for rank, tensor in got if tensor.numel()),
            ]
            if together:
                works = [group._end_coalescing(tensors[0].device)]  # noqa: SLF001 - likewise

        def end() -> None:
            with _peers():
                for work in works:
                    work.wait()

        return end

    def _announced(
        self, document: Document, tensors: Sequence[Tensor]
    ) -> tuple[list[Document], Tensor, list[Tensor]]:
        """The layouts of all, the bytes of this process, and the first bytes of each."""
        layout = {
            "document": document,
            "tensors": [[_name(one.dtype), list(one.shape)] for one in tensors],
            "accelerator": any(one.device.type != "cpu" for one in tensors),
        }
        text = json.dumps(layout).encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
        payload = _packed(tensors)
        own = torch.zeros(_HEAD + _SHORT, dtype=torch.uint8)
        own[:_HEAD].view(torch.int64).copy_(torch.tensor([number, len(text)]))
        if payload.device.type == "cpu":
            own[_HEAD : _HEAD + len(payload)] = payload[:_SHORT]
        heads = self._gathered(own)
        numbers = [head[:_HEAD].view(torch.int64).tolist() for head in heads]
        new = [rank for rank, (found, _) in enumerate(numbers) if found not in self._known[rank]]
        if new:
            longest = max(numbers[rank][1] for rank in new)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(text)] = _of_bytes(text)[:longest]
            received = [torch.empty_like(padded) for _ in range(self.size)]
            with _peers():
                self._host.allgather([received], [padded]).wait()
            for rank in new:
                found, length = numbers[rank]
                self._known[rank][found] = json.loads(received[rank][:length].numpy().tobytes())
        layouts = [known[found] for known, (found, _) in zip(self._known, numbers, strict=True)]
        for known in self._known:  # of as many tails and forms as there may be, the last ones
            while len(known) > _KEPT:
                del known[next(iter(known))]
        return layouts, payload, [head[_HEAD:] for head in heads]

    def _gathered(self, own: Tensor) -> list[Tensor]:
        received = [torch.empty_like(own) for _ in range(self.size)]
        with _peers():
            self._host.allgather([received], [own]).wait()
        return received

    def _of(self, tensor: Tensor) -> Any:
        return self._host if tensor.device.type == "cpu" else self._accelerator


_KEPT = 64  # documents of each rank
_HEAD = 16  # bytes: a document's number and its length
_SHORT = 4096  # bytes of tensors that travel with it


@contextmanager
def _peers() -> Iterator[None]:
    """What torch raises where a peer is gone becomes PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(f"another process of the group is gone: {error}") from error


def _of_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """All bytes of the tensors, uint8 of shape (N,), on the device of the first."""
    parts = []
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        if flat.stride(0) != 1:  # also of one number, which `contiguous` would leave as it is
            flat = flat.clone(memory_format=torch.contiguous_format)
        raw = flat.view(torch.uint8)
        parts.append(raw)
        if missing := -len(raw) % _ALIGNED:
            parts.append(raw.new_zeros(missing))
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def _unpacked(layout: Document, raw: Tensor) -> list[Tensor]:
    tensors, start = [], 0
    for name, shape in layout["tensors"]:
        size = _size(name, shape)
        part = raw[start : start + size].clone()
        tensors.append(part.view(getattr(torch, name)).reshape(shape))
        start += size + (-size % _ALIGNED)
    return tensors


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _length(layout: Document) -> int:
    """Bytes of what was packed by that layout."""
    sizes = [_size(name, shape) for name, shape in layout["tensors"]]
    return sum(size + (-size % _ALIGNED) for size in sizes)


def _size(name: str, shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    itemsize: int = getattr(torch, name).itemsize
    return count * itemsize
