"""A process that joins a run: it holds a seat there, and starts trainers as it is told to.

An engine starts it. The trainer, where the user's code runs, is a process of its own as on the
run's machine: engines bring threads and variables along. What passes between run and trainer goes
through here; what the trainer prints goes to the run. It ends with the engine, and with the run.
"""

from __future__ import annotations

import ctypes
import io
import os
import select
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.joining.connection import TOKEN, Refused, greeting, reached, shown
from epochal.tasks.joining.engine import UNREACHABLE, not_warned
from epochal.tasks.joining.place import opened
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.member import LocalMember, MemberEnded, told_standing
from epochal.tasks.launch.output import to_nobody
from epochal.tasks.trainer.channel import Channel, Message

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OF_ENGINES = frozenset(
    (
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "WORLD_SIZE"),
        *("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    )
)
"""Variables by which libraries would think that the run is theirs to divide."""
_FILES = frozenset({"fetch", "start_weights", "file"})
"""Questions that are answered with a file's path."""


def main(given: dict[str, Any]) -> None:
    """Joins the run, and ends with it: with exit code 0 if the run has said that it ends.

    given: `address` of the run, `wait_s` for it, `place` among the processes here, `mark`: a file
    for the exit code of the engine where there is no run to join; then this one's is 0, for an
    engine would try again.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # the engine ended before that took effect
        os._exit(1)
    not_warned()
    token = os.environ.pop(TOKEN, "")
    place = int(os.environ.get("LOCAL_RANK", given.get("place", 0)))
    for name in list(os.environ):
        if name in _OF_ENGINES or name.startswith(("TORCHELASTIC_", "RAY_")):
            del os.environ[name]
    address = (given["address"][0], given["address"][1])
    try:
        channel, own = reached(address, token, within_s=given["wait_s"])
        welcome = greeting(
            channel,
            kind="worker",
            told={"host": socket.gethostname(), "pid": os.getpid(), "place": place},
        )
    except Refused as error:
        _leave(f"the run at {shown(address)} refuses this process: {error}", 1, given["mark"])
    except (OSError, EOFError) as error:
        why = f"no run at {shown(address)} within {given['wait_s']:g} s: {error}"
        _leave(why, UNREACHABLE, given["mark"])
    buffer = opened(welcome["place"])
    channel.send({"type": "seated", "here": buffer is not None})
    code = _Relay(channel, own, buffer).run()
    os._exit(code)  # threads of outputs may wait for what never comes


def _leave(why: str, code: int, mark: str) -> NoReturn:
    sys.stderr.write(f"{why}\n")
    Path(mark).write_text(str(code))
    sys.exit(0)


class _RunGone(Exception):
    """Nobody is at the other end any more, or the run has ended. code: of this process then."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class _Relay:
    """Between a run and the trainers of one seat.

    own: the address of this machine on the way to the run. buffer: a descriptor of the run's; None
    where that is on another machine.
    """

    def __init__(self, channel: Channel, own: str, buffer: int | None) -> None:
        self._channel = channel
        self._own = own
        self._here = buffer is not None
        self._buffer = Buffer().descriptor if buffer is None else buffer
        self._copies: dict[str, tuple[str, IO[bytes]]] = {}
        self._trainer: LocalMember | None = None
        self._question = ""
        self._ending = self._leaving = False
        self._woken = _woken_by_signals()
        self._printed = {name: _ToRun(channel, name) for name in ("stdout", "stderr")}

    def run(self) -> int:
        """Until the run ends: gives this process's exit code."""
        signal.signal(signal.SIGTERM, self._leave)
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._printed["stdout"], self._printed["stderr"]
        try:
            while True:
                self._wait()
        except _RunGone as gone:
            return gone.code
        finally:
            sys.stdout, sys.stderr = before
            self._end_trainer()

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        """Leaves the run once there is no trainer here: until then it may still commit."""
        self._leaving = True

    def _wait(self) -> None:
        if self._leaving and self._trainer is None:
            raise _RunGone(128 + signal.SIGTERM)
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(self._channel.fileno(), select.POLLIN | select.POLLHUP)
        trainer = self._trainer
        if trainer is not None:
            poll.register(trainer.channel.fileno(), select.POLLIN | select.POLLHUP)
        ready = {descriptor for descriptor, _ in poll.poll()}
        if self._woken in ready:
            os.read(self._woken, 1 << 10)
        if trainer is not None and trainer.channel.fileno() in ready:
            try:
                message, data = trainer.receive()
            except MemberEnded:
                self._tell_death(trainer)
            else:
                self._from_trainer(trainer, message, data)
        if self._channel.fileno() in ready:
            self._from_run(*self._received())

    # --- from the run -------------------------------------------------------------------------

    def _received(self) -> tuple[Message, bytes | None]:
        try:
            return self._channel.receive()
        except (EOFError, OSError):
            raise _RunGone(0 if self._ending else 1) from None

    def _send(self, message: Message, data: bytes | None = None) -> None:
        try:
            self._channel.send(message, data)
        except OSError:
            raise _RunGone(0 if self._ending else 1) from None

    def _from_run(self, message: Message, data: bytes | None) -> None:
        trainer = self._trainer
        match message["type"]:
            case "start":
                self._start(message)
            case "kill":
                self._end_trainer()
                self._send({"type": "ended"})
            case "signal" if trainer is not None:
                trainer.process.send(message["number"])
            case "standing":
                self._tell_standing(message["number"])
            case "end":
                self._ending = True
                if trainer is None:
                    raise _RunGone(0)
                trainer.tell(message)
            case "answer" if not self._here and self._question in _FILES and message["answer"]:
                self._pass_file(message)
            case _ if trainer is not None:
                if message["type"] == "request":
                    trainer.noted = trainer.process.noted()
                    self._forget_copies()
                with suppress(MemberEnded):  # its end is told once it is seen
                    trainer.send(message, data)

    def _tell_standing(self, number: int) -> None:
        text = "It has no trainer"
        if self._trainer is not None:
            process = self._trainer.process
            text = told_standing(process.standing(), process.pid)
        self._send({"type": "standing", "text": text, "number": number})

    def _start(self, message: Message) -> None:
        """Starts a trainer. The first of a group awaits the others at a socket of this machine."""
        self._end_trainer()
        rank, listening = None, None
        if message["rank"] is not None:
            rank = replace(Rank(**message["rank"]), hostname=self._own)
            if rank.number == 0:
                family = socket.AF_INET6 if ":" in self._own else socket.AF_INET
                listening = socket.create_server((self._own, 0), family=family, backlog=1024)
                meeting = list(listening.getsockname()[:2])
                rank = replace(rank, meeting=meeting, listening=listening.fileno())
        self._trainer = LocalMember(printed=to_nobody, buffer=self._buffer, rank=rank)
        if listening is not None:
            listening.close()  # the trainer has it
        self._send(
            {
                "type": "started",
                "number": message["number"],
                "meeting": None if rank is None else rank.meeting,
            }
        )

    # --- from the trainer ---------------------------------------------------------------------

    def _from_trainer(self, trainer: LocalMember, message: Message, data: bytes | None) -> None:
        match message["type"]:
            case "ask":
                self._question = message["question"]
                if self._question == "release":
                    message["given"]["path"] = self._given_back(message["given"]["path"])
            case "failure":
                failure = message["failure"]
                place = trainer.process.crashed_since(trainer.noted)
                if failure["class"] == "TrainingFailed" and not failure["trace"] and place.trace:
                    failure.update(text=f"{failure['text']}{place.where}", trace=place.trace)
        self._send(message, data)

    def _tell_death(self, trainer: LocalMember) -> None:
        if self._ending:
            raise _RunGone(0)
        death = trainer.process.death(None, trainer.noted)
        self._end_trainer()
        self._send({"type": "death", "text": str(death), "trace": death.trace})

    def _end_trainer(self) -> None:
        trainer, self._trainer = self._trainer, None
        self._forget_copies()
        if trainer is not None:
            trainer.process.kill()
            trainer.end(within_s=0.0)

    # --- files of the run's machine, where that is another --------------------------------------

    def _pass_file(self, answer: Message) -> None:
        """Passes the answer on, with the path of a copy, which ends with this process."""
        trainer, path = self._trainer, answer["answer"]
        file = tempfile.TemporaryFile(prefix="epochal-copy-")  # noqa: SIM115 - kept
        while True:
            piece = {"path": path, "offset": file.tell()}
            self._send({"type": "ask", "question": "piece", "given": piece})
            message, data = self._answered()
            if self._trainer is not trainer or trainer is None:
                return  # another one has begun meanwhile, or none is wanted
            if message["type"] == "refusal":
                trainer.tell(message)
                return
            if not data:
                break
            file.write(data)
        file.flush()
        copy = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        self._copies[copy] = path, file
        trainer.tell({**answer, "answer": copy})

    def _answered(self) -> tuple[Message, bytes | None]:
        trainer = self._trainer
        while True:
            message, data = self._received()
            if message["type"] in {"answer", "refusal"}:
                return message, data
            self._from_run(message, data)
            if self._trainer is not trainer:
                return {"type": "none"}, None

    def _given_back(self, path: str) -> str:
        if path not in self._copies:
            return path
        original, file = self._copies.pop(path)
        file.close()
        return original

    def _forget_copies(self) -> None:
        for path in list(self._copies):
            self._given_back(path)


def _woken_by_signals() -> int:
    """A descriptor that can be read from once a signal has come."""
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    return read


class _ToRun(io.TextIOBase):
    """An output of this process that is printed by the run."""

    def __init__(self, channel: Channel, name: str) -> None:
        super().__init__()
        self._channel = channel
        self._name = name

    def write(self, text: str) -> int:
        """Sends it."""
        with suppress(OSError):  # nobody reads it any more
            self._channel.send({"type": "output", "stream": self._name}, text.encode())
        return len(text)
