"""The way between the flow's process and a trainer, in memory: messages come late, or it is cut."""

import itertools
import json
import select
from collections import deque
from collections.abc import Callable
from functools import partial

from support.simulator.clock import Here
from support.simulator.faults import Faults
from support.simulator.scheduler import Process, Scheduler

LONGEST_S = 0.005
"""A message is on its way for up to so long."""
DELAY_S = 20.0
"""One that is held up, and all behind it: up to so long."""
_numbers = itertools.count(1 << 20)
"""Of ends of channels: far above all descriptors."""
ENDS: "dict[int, End]" = {}


class End:
    """One end of a channel; has what `epochal.tasks.trainer.channel.Channel` has."""

    def __init__(self, scheduler: Scheduler, faults: Callable[[], Faults]) -> None:
        self._scheduler = scheduler
        self._faults = faults
        self._number = next(_numbers)
        ENDS[self._number] = self
        self._came: deque[tuple[float, bytes, bytes | None]] = deque()
        self._no_more = self._closed = False
        self.other: End = self

    def fileno(self) -> int:
        return self._number

    def send(self, message: dict, data: bytes | None = None) -> None:
        """No switch point: the one that sends may hold a lock that is none of the simulation."""
        scheduler = self._scheduler
        name = message["type"]
        kind = self._faults().strike("channel", name)
        scheduler.note(f"send {name} {kind or ''}")
        if kind == "kill" and scheduler.process is not None:
            scheduler.kill(scheduler.process)
        if kind == "cut":
            for end in (self, self.other):
                end._no_more = True
        process = scheduler.process
        if process is not None and not process.alive:
            scheduler.switch("killed")
        if self._closed or self.other._closed or kind == "cut":
            raise BrokenPipeError
        longest_s = DELAY_S if kind == "delay" else LONGEST_S
        at_s = scheduler.now_s + scheduler.random.uniform(0.0, longest_s)
        queue = self.other._came
        if queue:
            at_s = max(at_s, queue[-1][0])
        queue.append((at_s, json.dumps(message).encode(), data))

    @property
    def readable(self) -> bool:
        """Whether `receive` would return at once, or raise."""
        if self._came:
            return self._came[0][0] <= self._scheduler.now_s
        return self._no_more

    @property
    def next_s(self) -> float | None:
        """When the next message comes, if one is on its way."""
        return self._came[0][0] if self._came else None

    def receive(self) -> tuple[dict, bytes | None]:
        while not self.readable:
            next_s = self.next_s
            left_s = None if next_s is None else next_s - self._scheduler.now_s
            self._scheduler.wait(partial(self._has_more, len(self._came)), "a message", left_s)
        if not self._came:
            raise EOFError
        _, body, data = self._came.popleft()
        message = json.loads(body)
        self._scheduler.note(f"receive {message['type']}")
        return message, data

    def _has_more(self, before: int) -> bool:
        return self.readable or len(self._came) != before

    def has_message(self) -> bool:
        self._scheduler.switch("look for a message")
        return self.readable

    def receive_no_more(self) -> None:
        self._no_more = True

    def close(self) -> None:
        self._closed = True
        self.other._no_more = True


def channel(scheduler: Scheduler, faults: Callable[[], Faults]) -> tuple[End, End]:
    """The two ends of a new one."""
    ours, theirs = End(scheduler, faults), End(scheduler, faults)
    ours.other, theirs.other = theirs, ours
    return ours, theirs


class Poll:
    """In place of `select.poll()`: of ends of channels, and of descriptors of the system."""

    def __init__(self) -> None:
        self._ends: dict[int, End] = {}
        self._others = select.poll()

    def register(self, descriptor: int, events: int) -> None:
        if descriptor in ENDS:
            self._ends[descriptor] = ENDS[descriptor]
        else:
            self._others.register(descriptor, events)

    def unregister(self, descriptor: int) -> None:
        if self._ends.pop(descriptor, None) is None:
            self._others.unregister(descriptor)

    def _found(self) -> list[tuple[int, int]]:
        found = [(number, select.POLLIN) for number, end in self._ends.items() if end.readable]
        return found + self._others.poll(0)

    def poll(self, timeout_ms: float | None) -> list[tuple[int, int]]:
        scheduler = Here.scheduler
        assert scheduler is not None
        until_s = None if timeout_ms is None else scheduler.now_s + timeout_ms / 1000
        while not (found := self._found()):
            moments = [one.next_s for one in self._ends.values()]
            moments = [one for one in (*moments, until_s) if one is not None]
            left_s = min(moments) - scheduler.now_s if moments else None
            on_way = self._on_way()
            scheduler.wait(
                lambda seen=on_way: bool(self._found()) or self._on_way() != seen,
                "messages",
                left_s,
            )
            if until_s is not None and scheduler.now_s >= until_s:
                found = self._found()
                break
        order = found[:]
        scheduler.random.shuffle(order)
        return order

    def _on_way(self) -> list[int]:
        return [len(end._came) for end in self._ends.values()]


class Select:
    """In place of the module `select`."""

    POLLIN, POLLHUP = select.POLLIN, select.POLLHUP

    @staticmethod
    def poll() -> Poll:
        return Poll()


def end_with(process: Process, told: Callable[[], None]) -> None:
    """Has `told` called when the process is gone."""
    process.ended.append(told)
