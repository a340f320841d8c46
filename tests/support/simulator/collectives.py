"""A process group in memory: what torch's gloo does, among the threads of one process."""

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from support.simulator.clock import Here
from support.simulator.scheduler import Process, Scheduler
from torch import Tensor

from epochal.engine.shards.exchange import Exchange
from epochal.engine.shards.group import Group
from epochal.tasks.launch.meeting import Rank

LONGEST_S = 0.002
"""What is sent is on its way for up to so long."""


@dataclass
class Meeting:
    """Where the ranks of one start of a run's trainers meet.

    calls: number of the collective → rank → what it gave. sent: (from, to) → what is on its way.
    """

    size: int
    members: dict[int, Process] = field(default_factory=dict)
    calls: dict[int, dict[int, list[Tensor]]] = field(default_factory=lambda: defaultdict(dict))
    sent: dict[tuple[int, int], deque[Tensor]] = field(default_factory=lambda: defaultdict(deque))

    def is_gone(self, rank: int) -> bool:
        member = self.members.get(rank)
        return member is not None and not member.alive


MEETINGS: dict[str, Meeting] = {}


class _Work:
    """What was begun: `wait` ends it. Raises RuntimeError where a peer is gone, as torch does."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait = wait


class SimulatedHost:
    """In place of torch's `ProcessGroupGloo`, as far as `Exchange` uses it."""

    def __init__(self, meeting: Meeting, rank: int, scheduler: Scheduler) -> None:
        self._meeting, self._rank, self._scheduler = meeting, rank, scheduler
        self._number = 0

    def _wait_for(self, ready: Callable[[], bool], ranks: list[int], what: str) -> None:
        meeting = self._meeting
        others = [rank for rank in ranks if rank != self._rank]

        def gone() -> bool:
            return any(meeting.is_gone(rank) for rank in others)

        self._scheduler.wait(lambda: ready() or gone(), what)
        if not ready():
            message = "Connection closed by peer"
            raise RuntimeError(message)

    def broadcast(self, tensor: Tensor, root: int) -> _Work:
        calls, number = self._next()
        self._scheduler.note(f"broadcast {number}")
        if self._rank == root:
            calls[root] = [tensor.clone()]

        def wait() -> None:
            self._scheduler.switch("broadcast")
            self._wait_for(lambda: root in calls, [root], f"broadcast {number}")
            if self._rank != root:
                tensor.copy_(calls[root][0])

        return _Work(wait)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor]) -> _Work:
        calls, number = self._next()
        self._scheduler.note(f"allgather {number}")
        calls[self._rank] = [inputs[0].clone()]
        size = self._meeting.size

        def wait() -> None:
            self._scheduler.switch("allgather")
            self._wait_for(lambda: len(calls) == size, list(range(size)), f"allgather {number}")
            for rank, output in enumerate(outputs[0]):
                output.copy_(calls[rank][0])

        return _Work(wait)

    def send(self, tensors: list[Tensor], rank: int, _tag: int) -> _Work:
        self._scheduler.note(f"send to {rank}")
        self._meeting.sent[self._rank, rank].append(tensors[0].detach().clone())
        return _Work(lambda: self._scheduler.switch("sent"))

    def recv(self, tensors: list[Tensor], rank: int, _tag: int) -> _Work:
        queue = self._meeting.sent[rank, self._rank]

        def wait() -> None:
            self._wait_for(lambda: bool(queue), [rank], f"what {rank} sends")
            tensors[0].copy_(queue.popleft())

        return _Work(wait)

    def _next(self) -> tuple[dict[int, list[Tensor]], int]:
        self._number += 1
        return self._meeting.calls[self._number], self._number


def joined(rank: Rank, device: torch.device, *, shards: int, in_turns: bool = False) -> Group:
    """In place of `epochal.tasks.launch.meeting.joined`: once each has come."""
    scheduler = Here.scheduler
    assert scheduler is not None
    assert scheduler.process is not None
    meeting = MEETINGS.setdefault(str(rank.meeting), Meeting(rank.size))
    meeting.members[rank.number] = scheduler.process
    scheduler.wait(lambda: len(meeting.members) == rank.size, "the other ranks")
    host = SimulatedHost(meeting, rank.number, scheduler)
    return Group(Exchange(rank.number, rank.size, device, host), shards, in_turns=in_turns)
