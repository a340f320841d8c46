"""Where the processes that share a run's updates meet, and which of them each is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from epochal.engine.shards.group import Group


@dataclass(frozen=True)
class Rank:
    """Which of `size` processes one is, from 0. meeting: a file through which they meet."""

    number: int
    size: int
    meeting: str


LOOPBACK = "127.0.0.1"


def joined(rank: Rank, device: torch.device, *, shards: int, in_turns: bool = False) -> Group:
    """The group of all of them, once each has come. in_turns: as `Group` has it."""
    import torch.distributed

    from epochal.engine.shards.exchange import join
    from epochal.engine.shards.group import Group

    torchs: Any = torch.distributed  # its stubs do not have all of it
    store = torchs.FileStore(rank.meeting, rank.size)
    exchange = join(store, rank.number, rank.size, device=device, hostname=LOOPBACK)
    return Group(exchange, shards, in_turns=in_turns)
