"""Where the processes that share a run's updates meet, and which of them each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from epochal.engine.shards.group import Group

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Rank:
    """Which of `size` processes one is, from 0, and where it meets the others.

    meeting: a file, where all are on one machine; or host and port, at which the first of them has
    the socket `listening`, a descriptor. hostname: the address by which the others reach this one.
    place: among the processes of this machine, for its GPU; None: as `number`.
    """

    number: int
    size: int
    meeting: str | list[Any]
    hostname: str = LOOPBACK
    listening: int | None = None
    place: int | None = None

    @property
    def gpu(self) -> int:
        """The index of its GPU, where there is one for each process."""
        return self.number if self.place is None else self.place


def joined(rank: Rank, device: torch.device, *, shards: int, in_turns: bool = False) -> Group:
    """The group of all of them, once each has come. in_turns: as `Group` has it."""
    from epochal.engine.shards.exchange import PATIENCE, join
    from epochal.engine.shards.group import Group

    store = _store(rank, PATIENCE)
    exchange = join(store, rank.number, rank.size, device=device, hostname=rank.hostname)
    return Group(exchange, shards, in_turns=in_turns)


def _store(rank: Rank, patience: Any) -> Any:
    import torch.distributed

    torchs: Any = torch.distributed  # its stubs do not have all of it
    if isinstance(rank.meeting, str):
        return torchs.FileStore(rank.meeting, rank.size)
    host, port = rank.meeting
    served: dict[str, Any] = {}
    if rank.listening is not None:
        served = {"is_master": True, "master_listen_fd": rank.listening}
    return torchs.TCPStore(host, port, timeout=patience, wait_for_workers=False, **served)
