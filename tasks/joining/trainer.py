"""Trainer processes that an engine has started, and that join the run by TCP.

The run listens; whoever joins has a seat, in which it starts trainers as it is told to. Where a
trainer ends, all are ended, and as many start again in the seats there are, from the last commit.
The engine replaces what is lost as a whole: a process that holds a seat, or a machine.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import select
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError, Unavailable
from epochal.tasks.joining.connection import TOKEN, shown
from epochal.tasks.joining.engine import Engine
from epochal.tasks.joining.listener import Listener
from epochal.tasks.joining.place import place_of
from epochal.tasks.joining.seat import Seat
from epochal.tasks.launch.local import LocalTrainer, Reply
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.member import Member, MemberEnded
from epochal.tasks.trainer.answers import Answer
from epochal.tasks.trainer.channel import Message
from epochal.tasks.trainer.trainer import now_s

PIECE_BYTES = 1 << 22
"""Of a file, sent at once to a process of another machine."""
_OF_FILES = {"fetch": "", "start_weights": "", "newest_commit": "path"}
"""Questions that are answered with a file's path, and where in the answer."""


@dataclass
class JoinedTrainer(LocalTrainer):
    """Processes that join: as many as share the run."""

    _listener: Listener = field(init=False)
    _new_engine: Callable[[], Engine] = field(init=False)
    _engine: Engine = field(init=False)
    _told_files: set[str] = field(default_factory=set)
    _seated: list[Seat] = field(default_factory=list)
    _meeting_place: Any = None

    def __post_init__(self) -> None:
        launch = self.config.launch
        token = checked_token(self.config.launch.nodes)
        self._listener = Listener(
            launch.listening,
            token,
            place=place_of(self.buffer.descriptor),
            workers=self._size // launch.nodes,
            refused=self.reporter.notice,
            printed=self.reporter.printed,
        )
        given = {
            "address": self._listener.address,
            "workers": self._size // launch.nodes,
            "wait_s": launch.wait_seconds,
            "cluster": launch.cluster,
            "gpu": self.config.device != "cpu",
        }
        self._new_engine = partial(Engine, _ENGINES[launch.kind], given, token=token)
        self._engine = self._new_engine()

    @property
    def address(self) -> tuple[str, int]:
        """Where processes join."""
        return self._listener.address

    def request(self, name: str, body: Message, answers: Mapping[str, Answer]) -> Reply:
        """Has it done there."""
        if not self._members and not self._opened and not self._closed:
            try:
                self._begin()
            except MemberEnded as error:
                raise self._meant(error, body) from None
        return super().request(name, body, answers)

    def answer(
        self, question: str, given: Mapping[str, Any], data: bytes | None
    ) -> tuple[Any, bytes | None]:
        """The answer to a question; of files, those alone that an answer has named before."""
        if question in {"file", "piece"} and given["path"] not in self._told_files:
            raise Unavailable(f"{given['path']} is no file that the run has told its processes of")
        if question == "piece":
            return None, _piece(**given)
        answer, found = super().answer(question, given, data)
        if question in _OF_FILES and answer is not None:
            within = _OF_FILES[question]
            self._told_files.add(answer[within] if within else answer)
        return answer, found

    def close(self) -> None:
        """Ends the processes, at once where they are at work."""
        if not self._closed:
            super().close()
            self._listener.close()
            self._engine.end()

    # --- the processes ------------------------------------------------------------------------

    @property
    def _restartable(self) -> bool:
        return True

    def _begin(self) -> None:
        """Starts those of this machine; the first of them commits, and opens the run alone."""
        self._following = False
        self._told_files.clear()
        self._seated, self._meeting_place = [], None
        if self._engine.poll() is not None:  # and what it has started with it
            self._engine.end()
            self._engine = self._new_engine()
        self._start(self._await(self.config.launch.processes_here, here=True))

    def _complete(self) -> None:
        """Starts the others, who need not be there before."""
        if len(self._members) < self._size:
            self._start(self._await(self._size - len(self._members), here=False))

    def _await(self, count: int, *, here: bool) -> list[Seat]:
        """So many free seats, machine by machine. Raises Unavailable if they do not come."""
        awaiting = _Awaiting(self, told_at_once=not here)
        while True:
            free = [
                seat
                for seat in self._listener.seats
                if seat not in self._seated and (seat.joined.here or not here)
            ]
            if len(free) >= count:
                return sorted(free, key=lambda seat: seat.order)[:count]
            awaiting.wait()

    def _start(self, seats: list[Seat]) -> None:
        members: list[Member] = self._members
        for seat in seats:
            rank = None
            if self._size > 1:
                meeting = self._meeting_place or ""
                rank = Rank(len(members), self._size, meeting, place=seat.joined.place)
            self._seated.append(seat)
            member, meeting = seat.start(rank)
            members.append(member)
            self._meeting_place = self._meeting_place or meeting

    def _follow(self) -> Message:
        opened, checked = self._opened["open"], self._opened.get("check")
        run_inputs = opened.reply[0]["run_inputs"]
        if checked is not None:
            run_inputs = checked.reply[0]["run_inputs"] or run_inputs
        same = {
            "environment": opened.reply[0]["environment"],
            "sources": run_inputs["sources"],
            "files": run_inputs["files"],
        }
        return {**super()._follow(), "same": same, "store": opened.body["store"]}

    def tell_missing(self) -> None:
        """Says who is waited for, and how they come."""
        launch = self.config.launch
        there = len(self._listener.seats)
        how = ""
        if launch.nodes > 1:
            how = (
                f": run `epochal join {shown(self.address)}` on "
                f"{launch.nodes - 1} more machines, with this run's {TOKEN}"
            )
        self.reporter.notice(f"{there} of {self._size} processes have joined the run{how}")


class _Awaiting:
    """For processes to join: what is done meanwhile goes by the clock and by signals."""

    def __init__(self, trainer: JoinedTrainer, *, told_at_once: bool) -> None:
        self._trainer = trainer
        self._listener = trainer._listener  # noqa: SLF001 - its half
        self._engine = trainer._engine  # noqa: SLF001 - likewise
        launch = trainer.config.launch
        self._until_s = now_s() + launch.wait_seconds
        self._tell_s = now_s() + (0.0 if told_at_once else launch.silence_seconds)
        self._poll = select.poll()
        for one in (self._listener, self._engine, trainer.interruption):
            self._poll.register(one.fileno(), select.POLLIN | select.POLLHUP)

    def wait(self) -> None:
        """Until something has changed."""
        trainer, launch = self._trainer, self._trainer.config.launch
        trainer.interruption.obey()
        if self._engine.poll() is not None:
            raise Unavailable(
                f"launch.kind: {launch.kind}: the process that starts the trainer processes has "
                f"ended with exit code {self._engine.poll()}, before they had joined the run; what "
                "it printed stands above"
            )
        now = now_s()
        if now >= self._tell_s:
            trainer.tell_missing()
            self._tell_s = now + launch.silence_seconds
        if now >= self._until_s:
            there = len(self._listener.seats)
            raise Unavailable(
                f"{there} of {launch.processes} processes have joined the run within "
                f"{launch.wait_seconds:g} s (launch.wait_seconds); what was committed is intact, "
                "and the same command goes on from there"
            )
        self._poll.poll(max(0.0, min(self._until_s, self._tell_s) - now) * 1000 + 1)
        self._listener.note_changes()


def _piece(path: str, offset: int) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)


_ENGINES = {"elastic": "elastic", "ray": "ray_actors"}


def check_engine(kind: str) -> None:
    """Raises ConfigError if processes of that kind cannot be started on this machine."""
    if sys.platform != "linux":
        raise ConfigError(
            f"launch.kind: {kind} needs Linux, whose processes share memory by descriptors; use "
            "launch.kind: local"
        )
    if kind == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "launch.kind: ray needs the package `ray`, which is not installed: pip install "
            "'epochal[ray]'; or use launch.kind: local or elastic"
        )


def checked_token(nodes: int) -> str:
    """The secret of this run's processes.

    Raises ConfigError where other machines could not know it.
    """
    token = os.environ.get(TOKEN, "")
    if not token and nodes > 1:
        raise ConfigError(
            f"launch.nodes: {nodes} machines must share a secret: set {TOKEN} to the same random "
            "text here and where `epochal join` runs, such as that of `openssl rand -hex 32`"
        )
    return token or secrets.token_hex(32)
