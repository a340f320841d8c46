"""Where the runs of a sweep are worked on: in processes of this machine, or in this process."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from epochal.flows.sweeps.one_run import Order, run_one
from epochal.flows.sweeps.process import GRACE_S, RunProcess

Event = tuple[str, dict[str, Any]]
"""A run's name, and what it tells of itself."""
LOOK_EVERY_S = 0.5


class Lanes(Protocol):
    """Takes runs, as many at a time as there is room for, and tells how they get on."""

    @property
    def room(self) -> bool:
        """Whether one more run can start."""

    def start(self, order: Order) -> None:
        """Has it worked on. Where that is in this process, returns once it has ended."""

    def events(self) -> Iterator[Event]:
        """What has been told; waits half a second for it at most."""

    def close(self) -> None:
        """Ends what is still at work, once it has committed."""


class LocalLanes:
    """Processes on this machine, each with one run at a time; a trainer beside it computes."""

    def __init__(self, *, sweep: str, api_url: str, count: int, devices: Sequence[str]) -> None:
        self._sweep, self._api_url, self._count = sweep, api_url, count
        self._devices = tuple(devices)
        self._slots: dict[int, RunProcess] = {}
        self._selector = selectors.DefaultSelector()

    @property
    def room(self) -> bool:
        """Whether a process is idle, or can be started."""
        return self._free() is not None

    def _free(self) -> int | None:
        for slot in range(self._count):
            if slot not in self._slots or self._slots[slot].run is None:
                return slot
        return None

    def start(self, order: Order) -> None:
        """Gives it to an idle process."""
        slot = self._free()
        assert slot is not None
        if slot not in self._slots:
            process = RunProcess(sweep=self._sweep, api_url=self._api_url)
            self._slots[slot] = process
            self._selector.register(process, selectors.EVENT_READ, slot)
        if self._devices:
            device = self._devices[slot % len(self._devices)]
            order = order.on(device)
        self._slots[slot].start(order)

    def events(self) -> Iterator[Event]:
        """What the processes have told."""
        for ready, _ in self._selector.select(LOOK_EVERY_S):
            yield from self._told(ready.data)

    def _told(self, slot: int) -> Iterator[Event]:
        process = self._slots[slot]
        told, ended = process.events()
        for event in told:
            if (name := process.run) is None:
                continue  # of a run that has ended: what its tracker still had to say
            if event["event"] in {"finished", "failed"}:
                process.run = None
            yield name, event
        if ended:
            del self._slots[slot]
            self._selector.unregister(process)
            code = process.wait()
            process.close()
            if process.run is not None:
                yield process.run, _died(code)

    def close(self) -> None:
        """Asks them to commit, reads what they still tell, and ends those that do not end."""
        for process in self._slots.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        while self._slots and time.monotonic() < deadline:
            for _ in self.events():
                pass
        for process in self._slots.values():
            process.close()
        self._slots.clear()
        self._selector.close()


def _died(code: int) -> dict[str, Any]:
    import signal

    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    text = (
        f"its process ended {how}, without a word; what was committed is intact, run the same "
        "command to go on"
    )
    return {"event": "failed", "text": text, "code": 75, "stage": None, "interrupted": False,
            "halts": False, "trace": text}  # fmt: skip


class InlineLane:
    """In this process, one run after the other (`launch.kind: inline`)."""

    def __init__(
        self, *, api_url: str, told: Callable[[str, dict[str, Any]], None],
        call: Callable[[Order], dict[str, Any]],
    ) -> None:  # fmt: skip
        self._api_url, self._told, self._call = api_url, told, call

    @property
    def room(self) -> bool:
        """Always: a run has ended when `start` returns."""
        return True

    def start(self, order: Order) -> None:
        """Works on it."""
        run_one(
            order,
            api_url=self._api_url,
            tell=lambda event: self._told(order.config.name, dict(event)),
            call=self._call,
        )

    def events(self) -> Iterator[Event]:
        """None: they are told as they come."""
        return iter(())

    def close(self) -> None:
        """Nothing: nothing is at work."""
