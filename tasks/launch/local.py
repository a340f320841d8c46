"""A trainer process on this machine: asked, answered, watched, ended.

It has no Prefect, no MLflow and no store, and none of their variables. It ends with this process,
by SIGKILL too. What it prints is printed here.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from epochal.data.errors import TrainingFailed
from epochal.tasks.launch.failures import error_of, told_error
from epochal.tasks.launch.trainer_process import END_WITHIN_S, TrainerProcess
from epochal.tasks.trainer.answers import Answer
from epochal.tasks.trainer.channel import Channel, Message
from epochal.tasks.trainer.trainer import Trainer, now_s


class _TrainerEnded(Exception):
    """The process is gone."""


@dataclass
class LocalTrainer(Trainer):
    """A process of its own."""

    _process: TrainerProcess | None = None
    _channel: Channel | None = None
    _busy: bool = False
    _asked: Exception | None = None
    _noted: int = 0
    _heard_s: float = 0.0
    _closed: bool = False

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours.detach())
        self._process = TrainerProcess(
            channel=theirs.fileno(),
            buffer=self.buffer.descriptor,
            ended=self._channel.receive_no_more,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def request(
        self, name: str, body: Message, answers: Mapping[str, Answer]
    ) -> tuple[Message, bytes | None]:
        """Has it done there."""
        if self._process is None:
            raise TrainingFailed("the trainer process has ended: the same command starts another")
        self._answers, self._asked = dict(answers), None
        self._noted, self._busy = self._process.noted(), True
        try:
            with self._process.stopped_with_this_one(woken=self._heard):
                self._send({"type": "request", "name": name, "body": body})
                return self._reply()
        except _TrainerEnded:
            raise self._process.death(body.get("label"), self._noted) from None
        finally:
            if self._busy:  # nobody waits for the reply any more
                self._end(within_s=0.0)

    def close(self) -> None:
        """Ends the process, at once where it is at work."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):
            self._send({"type": "end"}, to_nobody=True)
        self._end(within_s=0.0 if self._busy else END_WITHIN_S)
        assert self._channel is not None
        self._channel.close()
        self.buffer.close()

    def _end(self, *, within_s: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(within_s=within_s)

    def freed(self) -> None:
        """The buffer may be written to."""
        self._send({"type": "freed"}, to_nobody=True)

    def committed(self) -> None:
        """Another commit may begin."""
        self._send({"type": "committed"}, to_nobody=True)

    def stop(self) -> None:
        """The work is of no use any more."""
        self._send({"type": "stop"}, to_nobody=True)

    # ------------------------------------------------------------------------------------------

    def _reply(self) -> tuple[Message, bytes | None]:
        """What comes of the request; meanwhile answers, shows, and passes a signal on."""
        assert self._channel is not None
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN | select.POLLHUP)
        signals = self.interruption.fileno()
        poll.register(signals, select.POLLIN)
        self._heard()
        passed_on, told_silence = False, False
        while True:
            if self.interruption.came and not passed_on:
                passed_on = True
                poll.unregister(signals)
                self._send({"type": "interrupt"})
            left_s = self._heard_s + self.config.launch.silence_seconds - now_s()
            if passed_on:
                left_s = self.config.checkpoint.grace_seconds - self.interruption.since_s
                if left_s <= 0:
                    self._give_up()
            ready = poll.poll(None if told_silence and not passed_on else max(0.0, left_s) * 1000)
            if not ready:
                if passed_on:
                    continue
                told_silence = True
                self._tell_silence()
                continue
            if all(descriptor == signals for descriptor, _ in ready):
                continue
            self._heard()
            told_silence = False
            reply = self._take(*self._receive())
            if reply is not None:
                return reply

    def _heard(self) -> None:
        self._heard_s = now_s()

    def _take(self, message: Message, data: bytes | None) -> tuple[Message, bytes | None] | None:
        match message["type"]:
            case "reply":
                self._busy = False
                return message["reply"], data
            case "failure":
                self._busy = False
                raise self._failure(message["failure"])
            case "ask":
                self._answer_to(message, data)
            case "live":
                self.tell_live(message["live"])
            case "notice":
                self.reporter.notice(message["text"])
            case "commit":
                self.begin_commit(message["commit"])
            case "give_up_commit":
                self.give_up_commit()
            case "prepare":
                self.prepare(message["size"])
        return None

    def _answer_to(self, message: Message, data: bytes | None) -> None:
        try:
            answer, found = self.answer(message["question"], message["given"], data)
        except Exception as error:  # noqa: BLE001 - raised there, as if the question had raised it
            self._asked = error
            self._send({"type": "refusal", "failure": told_error(error)})
        else:
            self._send({"type": "answer", "answer": answer}, data=found)

    def _send(
        self, message: Message, *, data: bytes | None = None, to_nobody: bool = False
    ) -> None:
        assert self._channel is not None
        try:
            self._channel.send(message, data)
        except OSError:
            if not to_nobody:
                raise _TrainerEnded from None

    def _receive(self) -> tuple[Message, bytes | None]:
        assert self._channel is not None
        try:
            return self._channel.receive()
        except (EOFError, OSError):
            raise _TrainerEnded from None

    def _failure(self, told: Message) -> Exception:
        assert self._process is not None
        if self._asked is not None and told_error(self._asked)["text"] == told["text"]:
            return self._asked  # of this process, which had been told there
        error = error_of(told)
        if isinstance(error, TrainingFailed) and error.trace is None:
            # A process that it has forked may have crashed: what it was at says more.
            place = self._process.crashed_since(self._noted)
            if place.trace is not None:
                error.args = (f"{error}{place.where}",)
                error.trace = place.trace
        return error

    def _give_up(self) -> None:
        """The trainer did not put its work down in time: it is ended, and the signal obeyed."""
        self.reporter.notice(
            "the trainer did not put its work down within "
            f"{self.config.checkpoint.grace_seconds:g} s (checkpoint.grace_seconds): it is ended, "
            f"and the run goes on from the last commit. {self._standing()}"
        )
        self._end(within_s=0.0)
        self.interruption.obey()

    def _tell_silence(self) -> None:
        self.reporter.notice(
            f"no sign of the trainer for {self.config.launch.silence_seconds:g} s "
            f"(launch.silence_seconds). {self._standing()}"
        )

    def _standing(self) -> str:
        """Where it is, for a person."""
        assert self._process is not None
        standing = self._process.standing()
        if not standing.begun:
            return "It cannot say where it is: it still starts"
        if not standing.answered:
            return f"It does not answer: was it stopped? `kill -CONT {self.pid}` lets it go on"
        if standing.place.trace is None:
            return "It is in no file of yours"
        return f"It is at {standing.place.where.strip(' ()')}:{os.linesep}{standing.place.trace}"
