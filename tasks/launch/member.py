"""One trainer process of a run with the way to it: what is sent there, and what comes back."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from epochal.data.errors import EpochalError
from epochal.tasks.launch.failures import Place
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.trainer_process import Standing, TrainerProcess
from epochal.tasks.trainer.channel import Channel, Message


class MemberEnded(Exception):
    """The process is gone."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member


class Process(Protocol):
    """What is asked of a trainer's process, whoever has started it: see `TrainerProcess`."""

    @property
    def pid(self) -> int: ...  # noqa: D102 - said there

    def send(self, number: int) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102
    def end(self, *, within_s: float) -> None: ...  # noqa: D102
    def noted(self) -> int: ...  # noqa: D102
    def crashed_since(self, noted: int) -> Place: ...  # noqa: D102
    def death(self, label: str | None, noted: int) -> EpochalError: ...  # noqa: D102


class Member(ABC):
    """A trainer process, and the way to it.

    busy: whether it was asked for something that it has not answered. asked: the error with which
    its question was answered last. noted: how much of its traces there was before the request.
    """

    def __init__(self, channel: Channel, process: Process, rank: Rank | None) -> None:
        self.channel = channel
        self.process = process
        self.rank = rank
        self.busy = False
        self.asked: Exception | None = None
        self.noted = 0

    @property
    def name(self) -> str:
        """As messages name it, where there are several."""
        return "" if self.rank is None else f"rank {self.rank.number}"

    def request(self, name: str, body: Message, data: bytes | None = None) -> None:
        """Asks for something. Raises MemberEnded."""
        self.asked, self.noted, self.busy = None, self.process.noted(), True
        self.send({"type": "request", "name": name, "body": body}, data)

    def send(self, message: Message, data: bytes | None = None) -> None:
        """Raises MemberEnded."""
        try:
            self.channel.send(message, data)
        except OSError:
            raise MemberEnded(self) from None

    def tell(self, message: Message) -> None:
        """Sends it if somebody is there."""
        with suppress(MemberEnded):
            self.send(message)

    def receive(self) -> tuple[Message, bytes | None]:
        """The next message. Raises MemberEnded."""
        try:
            return self.channel.receive()
        except (EOFError, OSError):
            raise MemberEnded(self) from None

    def end(self, *, within_s: float) -> None:
        """Ends the process, by force if it does not end in that time."""
        self.process.end(within_s=within_s)
        self.channel.close()

    @property
    @abstractmethod
    def standing(self) -> str:
        """Where the process is, for a person."""


class LocalMember(Member):
    """A trainer process that this one starts. buffer: a descriptor for it."""

    process: TrainerProcess

    def __init__(self, *, buffer: int, printed: Callable[[str], None], rank: Rank | None) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours.detach())
        process = TrainerProcess(
            channel=theirs.fileno(),
            buffer=buffer,
            ended=channel.receive_no_more,
            printed=printed,
            rank=rank,
        )
        theirs.close()
        super().__init__(channel, process, rank)

    @property
    def standing(self) -> str:
        """Where the process is, for a person."""
        return told_standing(self.process.standing(), self.process.pid)


def told_standing(standing: Standing, pid: int) -> str:
    """Where a process is, for a person."""
    if not standing.begun:
        return "It cannot say where it is: it still starts"
    if not standing.answered:
        return f"It does not answer: was it stopped? `kill -CONT {pid}` lets it go on"
    if standing.place.trace is None:
        return "It is in no file of yours"
    return f"It is at {standing.place.where.strip(' ()')}:{os.linesep}{standing.place.trace}"
