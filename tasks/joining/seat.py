"""A process that has joined a run, as the run sees it: what it prints, what its trainer says."""

from __future__ import annotations

import codecs
import itertools
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any

from epochal.data.errors import TrainingFailed, Unavailable
from epochal.tasks.launch.failures import Place
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.member import Member, MemberEnded
from epochal.tasks.launch.output import print_chunk
from epochal.tasks.launch.trainer_process import END_WITHIN_S, INTACT, died
from epochal.tasks.trainer.channel import Channel, Message

_START_WITHIN_S = 60.0
_STAND_WITHIN_S = 5.0
_STREAMS = ("stdout", "stderr")


@dataclass(frozen=True)
class Joined:
    """Who has joined. host: its machine's name. here: whether that is this one, with its files.

    place: its number among the processes of its engine on that machine.
    """

    host: str
    pid: int
    place: int
    here: bool


class Seat:
    """One connection, through which trainers are started and ended one after the other.

    left: called in a thread once the connection has ended. printed: likewise, with each line of its
    output.
    """

    def __init__(
        self,
        channel: Channel,
        joined: Joined,
        *,
        left: Callable[[], None],
        printed: Callable[[str], None],
    ) -> None:
        self.joined = joined
        self.channel = channel
        self.gone = threading.Event()
        self._numbers = itertools.count()
        self._starting: JoinedMember | None = None
        self._running: JoinedMember | None = None
        self._told: SimpleQueue[Message] = SimpleQueue()
        self._printed = printed
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")() for name in _STREAMS}
        self._thread = threading.Thread(
            target=self._carry, args=(left,), name="trainer_joined", daemon=True
        )
        self._thread.start()

    @property
    def order(self) -> tuple[bool, str, int]:
        """By which seats are taken: this machine's first, then machine by machine."""
        return not self.joined.here, self.joined.host, self.joined.place

    def start(self, rank: Rank | None) -> tuple[Member, Any]:
        """Has a trainer started; gives it, and host and port at which it awaits the others.

        Raises MemberEnded.
        """
        self._starting = member = JoinedMember(self, rank)
        told = None if rank is None else asdict(rank)
        started = self._asked({"type": "start", "rank": told}, _START_WITHIN_S)
        if started is None:
            raise MemberEnded(member)
        return member, started["meeting"]

    def standing(self) -> str:
        """Where its trainer is, for a person."""
        found = self._asked({"type": "standing"}, _STAND_WITHIN_S)
        return f"{self.joined.host} does not answer" if found is None else str(found["text"])

    def tell(self, message: Message) -> None:
        """Sends it if somebody is there."""
        with suppress(OSError):
            self.channel.send(message)

    def close(self) -> None:
        """Ends the connection."""
        self.channel.receive_no_more()
        self._thread.join(END_WITHIN_S)
        self.channel.close()

    def _asked(self, message: Message, within_s: float) -> Message | None:
        """What is answered to it, or None."""
        number, until_s = next(self._numbers), time.monotonic() + within_s
        self.tell({**message, "number": number})
        while not self.gone.is_set():
            try:
                found = self._told.get(timeout=max(0.0, until_s - time.monotonic()))
            except Empty:
                return None
            if found.get("number") == number:
                return found
        return None

    # --- the thread ---------------------------------------------------------------------------

    def _carry(self, left: Callable[[], None]) -> None:
        """Takes what comes: shown, answered to whoever waits here, or passed on."""
        with suppress(EOFError, OSError):
            while True:
                self._take(*self.channel.receive())
        self._end_running({})
        if self._starting is not None:
            self._starting.process.end_with({})
        self.gone.set()
        self._told.put({})
        left()

    def _take(self, message: Message, data: bytes | None) -> None:
        match message["type"]:
            case "output":
                stream = message["stream"]
                print_chunk(data or b"", stream, self._decoders[stream])
                for line in (data or b"").decode(errors="replace").splitlines():
                    self._printed(line)
            case "started":
                self._running = self._starting
                self._told.put(message)
            case "standing":
                self._told.put(message)
            case "death" | "ended":
                self._end_running(message)
            case _ if self._running is not None:
                self._running.pass_on(message, data)

    def _end_running(self, told: Message) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.process.end_with(told)


class JoinedProcess:
    """A trainer's process, started by one that has joined: what is asked of a `TrainerProcess`."""

    def __init__(self, seat: Seat, receiving: Channel, passing: Channel) -> None:
        self._seat = seat
        self._receiving = receiving
        self._passing = passing
        self._told: Message = {}
        self._over = threading.Event()

    @property
    def pid(self) -> int:
        """Of the process that has joined: that of the trainer itself is of its machine."""
        return self._seat.joined.pid

    def send(self, number: int) -> None:
        """Sends it and what it has started a signal."""
        self._seat.tell({"type": "signal", "number": int(number)})

    def kill(self) -> None:
        """Ends it and what it has started, at once."""
        self._seat.tell({"type": "kill"})
        self._receiving.receive_no_more()

    def end(self, *, within_s: float) -> None:
        """Waits for its end, which is forced if it does not come."""
        if not self._over.wait(within_s):
            self.kill()
            self._over.wait(END_WITHIN_S)

    def end_with(self, told: Message) -> None:
        """It is gone, as was told: nothing comes of it any more."""
        if not self._over.is_set():
            self._told = told
            self._passing.close()
            self._over.set()

    def noted(self) -> int:
        """How much of traces there is so far: they are looked at where it runs."""
        return 0

    def crashed_since(self, noted: int) -> Place:  # noqa: ARG002 - as a process of this machine
        """Where it has crashed: told with its failure."""
        return Place()

    def death(self, label: str | None, noted: int) -> TrainingFailed | Unavailable:  # noqa: ARG002 - likewise
        """What its end means, which nobody has asked for."""
        self._over.wait(END_WITHIN_S)
        if self._told.get("type") == "death":
            return died(self._told["text"], label, self._told["trace"])
        before = "" if label is None else f"{label}: "
        return Unavailable(
            f"{before}the process that had joined on {self._seat.joined.host} (pid {self.pid}) is "
            f"gone, or the way to it: it was ended, or its machine or the network has failed. "
            f"{INTACT}"
        )


class JoinedMember(Member):
    """A trainer that was started through a seat."""

    process: JoinedProcess

    def __init__(self, seat: Seat, rank: Rank | None) -> None:
        ours, theirs = socket.socketpair()
        self._seat = seat
        self._passing = Channel(theirs.detach())
        receiving = _Through(ours.detach(), seat.channel)
        super().__init__(receiving, JoinedProcess(seat, receiving, self._passing), rank)

    def pass_on(self, message: Message, data: bytes | None) -> None:
        """To whoever receives from this member; nothing where nobody does any more."""
        with suppress(OSError):
            self._passing.send(message, data)

    @property
    def name(self) -> str:
        """As messages name it, where there are several."""
        joined = self._seat.joined
        own = super().name
        return own if joined.here or not own else f"{own} on {joined.host}"

    @property
    def standing(self) -> str:
        """Where the process is, for a person."""
        return self._seat.standing()


class _Through(Channel):
    """Receives what a seat passes on, and sends to the other side itself."""

    def __init__(self, descriptor: int, outer: Channel) -> None:
        super().__init__(descriptor)
        self._outer = outer

    def send(self, message: Message, data: bytes | None = None) -> None:
        """As `Channel`."""
        self._outer.send(message, data)
