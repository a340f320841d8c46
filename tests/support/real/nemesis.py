"""What goes wrong in a life of the real command: each fault, when its place is reached."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.histories.history import Fault
from support.real.command import RealCommand
from support.real.machine import mount

from epochal.data.testing.s3 import RequestFault, S3Server

STOPPED_S = 2.0
"""How long a stopped process, a stopped server, a full or a read-only disk stays so."""

GRACE_S = 1.5
"""From SIGTERM to SIGKILL, where the grace is short."""

SERVER = (
    "put lost", "put late", "put doubled", "put 503 SlowDown", "put 500 InternalError",
    "put 409 ConditionalRequestConflict", "put reset", "put kill", "put kill_after",
    "create 500 InternalError", "create lost", "create late", "part reset", "part lost",
    "part doubled", "part 503 SlowDown", "part slow", "part kill", "complete lost",
    "complete doubled", "complete cut", "complete late", "complete 500 InternalError",
    "complete 409 ConditionalRequestConflict", "complete kill", "complete kill_after",
    "get flip", "get cut", "get reset", "get 503 SlowDown", "head lost", "head 500 InternalError",
    "list 503 SlowDown", "list cut", "list slow", "delete lost", "delete 500 InternalError",
    "any hang", "any stop",
)  # fmt: skip
PROCESS = (
    "kill command", "kill trainer", "kill worker", "kill all", "stop command", "stop trainer",
    "stop all", "term", "term and kill",
)  # fmt: skip
MACHINE = ("clock back", "clock ahead", "tmp full", "read only")
OTHER = "other machine"
"""A life whose command is on another machine than that of the first life."""

KINDS = {"server": SERVER, "process": PROCESS, "instant": PROCESS, "machine": MACHINE}
HOUR_S = 3600


@dataclass(frozen=True)
class Whole:
    """What an unbroken life has, of which a fault's place is a share. requests: by kind."""

    requests: dict[str, int]
    micro_steps: int
    seconds: float


@dataclass
class Nemesis:
    """Faults of one life. `read_only`: the folder of the server's data, mounted onto itself."""

    server: S3Server
    whole: Whole
    faults: tuple[Fault, ...]
    data: Path
    reached: dict[int, bool] = field(default_factory=dict)
    _undo: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    _read_only: bool = False

    def begin(self) -> None:
        """Gives the server its plan."""
        self._planned = {
            number: one
            for number, fault in enumerate(self.faults)
            if (one := self._request_fault(fault)) is not None
        }
        self.server.fail(*self._planned.values())

    def _request_fault(self, fault: Fault) -> RequestFault | None:
        of, _, how = fault.kind.partition(" ")
        if fault.where != "server" or how == "stop":
            return None
        at = fault.operation(self._requests(of))
        return RequestFault(how, of=of, at=at, count=fault.count, seconds=STOPPED_S)

    def _requests(self, of: str) -> int:
        counts = self.whole.requests
        return sum(counts.values()) if of == "any" else counts.get(of, 0)

    def look(self, command: RealCommand) -> None:
        """Does what is due, and ends what has lasted long enough."""
        now = time.monotonic()
        for until, undo in [one for one in self._undo if one[0] <= now]:
            self._undo.remove((until, undo))
            undo()
        if self.server.pid is None and not self._read_only:
            self._killed()
        for number, fault in enumerate(self.faults):
            if number not in self.reached and self._due(fault, command):
                self.reached[number] = self._act(fault, command)

    def _killed(self) -> None:
        """The server has ended at a request: it is there again, without that fault."""
        self._count()
        self._planned = {
            number: one for number, one in self._planned.items() if number not in self.reached
        }
        self.server.start()
        self.server.fail(*self._planned.values())

    def _count(self) -> None:
        """What the server has counted since it began."""
        try:
            counts = self.server.counts()
        except OSError:  # its disk was read-only, and it has ended without a word: by such a fault
            self.reached |= {n: True for n, one in self._planned.items() if "kill" in one.how}
            return
        self.requests = counts["requests"]
        for number, told in zip(self._planned, counts["faults"], strict=True):
            if told["failed"]:
                self.reached[number] = True

    def _due(self, fault: Fault, command: RealCommand) -> bool:
        if fault.kind == OTHER:
            return True  # the whole life is there
        if fault.where in {"process", "machine"}:
            return command.micro_steps > fault.at * self.whole.micro_steps
        if fault.where == "instant":
            return time.monotonic() - command.began > fault.at * self.whole.seconds
        if fault.kind == "any stop" and not self._undo:
            try:
                seen = self.server.counts()["requests"]
            except OSError:  # it has just been killed
                return False
            return sum(seen.values()) >= fault.operation(self._requests("any"))
        return False

    def _act(self, fault: Fault, command: RealCommand) -> bool:
        kind = fault.kind
        if kind == "any stop":
            self.server.stop()
            return self._later(self.server.resume)
        if fault.where == "machine":
            return self._machine(kind, command)
        if kind.startswith("kill "):
            return command.signal(signal.SIGKILL, kind.removeprefix("kill "))
        if kind.startswith("stop "):
            pids = command.pids(kind.removeprefix("stop "))
            sent = command.signal(signal.SIGSTOP, kind.removeprefix("stop "))
            return sent and self._later(lambda: _resume(pids))
        command.process.send_signal(signal.SIGTERM)
        if kind == "term and kill":
            self._later(lambda: command.runs and command.process.kill(), GRACE_S)
        return True

    def _machine(self, kind: str, command: RealCommand) -> bool:
        machine = command.machine
        if kind == OTHER:
            return True
        if kind.startswith("clock"):
            machine.set_clock(HOUR_S if kind == "clock ahead" else -HOUR_S)
            return True
        if kind == "tmp full":
            machine.fill()
            return self._later(machine.empty)
        if not mount("-o", "remount,ro,bind", str(self.data)):
            return False  # some file was open to be written just then
        self._read_only = True
        return self._later(self._writable)

    def _writable(self) -> None:
        self._read_only = not mount("-o", "remount,rw,bind", str(self.data))

    def _later(self, undo: Callable[[], object], seconds: float = STOPPED_S) -> bool:
        self._undo.append((time.monotonic() + seconds, undo))
        return True

    def end(self) -> tuple[bool, ...]:
        """Takes back what lasts; of each fault, whether it was reached."""
        for _, undo in self._undo:
            undo()
        if self.server.pid is None:
            self._killed()
        self._count()
        self.server.fail()
        return tuple(self.reached.get(number, False) for number in range(len(self.faults)))


def _resume(pids: list[int]) -> None:
    subprocess.run(["kill", "-CONT", *map(str, pids)], capture_output=True, check=False)
