"""The trainer's end of the way to the flow's process."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from epochal.data.forks import end_if_forked
from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.computing.link import told
from epochal.tasks.launch.failures import error_of
from epochal.tasks.reporting import Live, Told
from epochal.tasks.trainer.channel import LOST_CHANNEL, Channel, Message

SIGN_EVERY_S = 1.0
"""Between two signs of life where there is nothing else to tell."""


class ProcessLink:
    """Talks through a channel; ends the process where nobody is at its other end."""

    def __init__(self, channel: Channel, buffer: Buffer) -> None:
        self.buffer = buffer
        self._channel = channel
        self._interrupted = False
        self._stopped = False
        self._free = True
        self._idle = True
        self._told_s = 0.0
        self._pid = os.getpid()
        self._waiting: list[tuple[Message, bytes | None]] = []

    @property
    def interrupted(self) -> bool:
        """Whether the run is to be put down, once what is done is committed."""
        self._take_all()
        return self._interrupted

    @property
    def stopped(self) -> bool:
        """Whether the work is of no use any more."""
        self._take_all()
        return self._stopped

    @property
    def can_commit(self) -> bool:
        """Whether no commit is under way."""
        return self._idle and self._free

    def notice(self, text: str) -> None:
        """Tells a person something."""
        self._send({"type": "notice", "text": text})

    def live(self, live: Live) -> None:
        """Tells how far an epoch is."""
        self._send({"type": "live", "live": asdict(live)})

    def report(self, what: Told, /, **body: Any) -> None:
        """Tells a person what goes on."""
        self._send({"type": "report", "what": what, "body": body})

    def alive(self) -> None:
        """A sign of life, now and then."""
        if time.monotonic() - self._told_s > SIGN_EVERY_S:
            self._send({"type": "alive"})

    def ask(self, question: str, **given: Any) -> Any:
        """The answer, plain JSON. Raises what was raised there."""
        return self._answer(question, None, given)[0]

    def ask_bytes(self, question: str, data: bytes | None = None, **given: Any) -> bytes:
        """As `ask`, with bytes."""
        return self._answer(question, data, given)[1] or b""

    def wait_for_buffer(self) -> None:
        """Until nobody reads the buffer any more."""
        while not self._free:
            self._take(*self._receive())

    def claim_buffer(self) -> None:
        """As `wait_for_buffer`; a commit inside the epoch is given up for it."""
        if not self._free:
            self._send({"type": "give_up_commit"})
        self.wait_for_buffer()
        self._free = False

    def prepare(self, size: int) -> None:
        """Has memory made for the buffer."""
        self._send({"type": "prepare", "size": size})

    def commit(self, **commit: Any) -> None:
        """Has what is in the buffer committed."""
        self._free = self._idle = False
        self._send({"type": "commit", "commit": commit})

    def next_request(self) -> tuple[str, Message, bytes | None]:
        """What is asked for next, once it is, with bytes where there are some."""
        while not self._waiting:
            self._take(*self._receive())
        message, data = self._waiting.pop(0)
        self._interrupted = self._stopped = False
        return message["name"], message["body"], data

    def reply(self, reply: Message, data: bytes | None = None) -> None:
        """Sends what came of a request."""
        self._send({"type": "reply", "reply": reply}, data)

    def fail(self, failure: Message) -> None:
        """Sends the error that came of a request."""
        self._send({"type": "failure", "failure": failure})

    def _answer(
        self, question: str, data: bytes | None, given: dict[str, Any]
    ) -> tuple[Any, bytes | None]:
        self._send({"type": "ask", "question": question, "given": given}, data)
        while True:
            message, found = self._receive()
            if message["type"] == "answer":
                return message["answer"], found
            if message["type"] == "refusal":
                raise told(error_of(message["failure"]))
            self._take(message, found)

    def _take_all(self) -> None:
        end_if_forked(self._pid)
        while self._channel.has_message():
            self._take(*self._receive())

    def _take(self, message: Message, data: bytes | None) -> None:
        match message["type"]:
            case "interrupt":
                self._interrupted = True
            case "stop":
                self._stopped = True
            case "freed":
                self._free = True
            case "committed":
                self._idle = True
            case "request":
                self._waiting.append((message, data))
            case "end":
                self._leave()

    def _send(self, message: Message, data: bytes | None = None) -> None:
        self._told_s = time.monotonic()
        end_if_forked(self._pid)
        try:
            self._channel.send(message, data)
        except ConnectionError:
            self._leave()
        except OSError:
            self._leave(LOST_CHANNEL)

    def _receive(self) -> tuple[Message, bytes | None]:
        try:
            return self._channel.receive()
        except (EOFError, ConnectionError):
            self._leave()
            raise
        except OSError:
            self._leave(LOST_CHANNEL)
            raise

    def _leave(self, code: int = 0) -> None:
        """Ends this process at once: nobody asks for anything any more.

        Without exit handlers: the user's may wait for what never comes. Workers of the loader end
        with their parent.
        """
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # the user's code may have put anything there
                stream.flush()
        os._exit(code)


class FollowerLink(ProcessLink):
    """Of a process that shares the work of the first: it asks, and leaves it to that one to tell.

    Whether the work is put down the first process says too, at a moment that is the same for all.
    """

    @property
    def interrupted(self) -> bool:
        """Never by itself."""
        return False

    @property
    def stopped(self) -> bool:
        """Never by itself."""
        return False

    @property
    def can_commit(self) -> bool:
        """It commits nothing."""
        return False

    def notice(self, text: str) -> None:
        """Told once, by the first process."""

    def live(self, live: Live) -> None:
        """Told by the first process."""

    def report(self, what: Told, /, **body: Any) -> None:
        """Told by the first process."""
