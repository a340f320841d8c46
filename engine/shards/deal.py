"""Which micro-batches of an update make a shard, and which shards a process takes."""

from __future__ import annotations


def shard_ends(count: int, shards: int) -> list[int]:
    """Where each shard of `count` micro-batches ends: contiguous runs, as equal as can be.

    With fewer micro-batches than shards some are empty.
    """
    return [(shard + 1) * count // shards for shard in range(shards)]


def shards_of(rank: int, *, processes: int, shards: int) -> range:
    """The shards of one process, from 0: contiguous, so many as the others have or one more.

    The first processes have one more: 3, 3 and 2 of 8.
    """
    share, more = divmod(shards, processes)
    start = rank * share + min(rank, more)
    return range(start, start + share + (rank < more))
