"""The trainer that is this process: for a debugger or a notebook.

Prefect, MLflow and the store have threads here, which draw from the same `random` as the user's
items: what such items give may differ from run to run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.launch.requests import Worker, handle
from epochal.tasks.reporting import Live, Told
from epochal.tasks.trainer.answers import Answer
from epochal.tasks.trainer.channel import Message
from epochal.tasks.trainer.trainer import Trainer


@dataclass
class InlineTrainer(Trainer):
    """Computes where it is asked."""

    _free: threading.Event = field(default_factory=threading.Event)
    _idle: threading.Event = field(default_factory=threading.Event)
    stopped: bool = False

    def __post_init__(self) -> None:
        self._free.set()
        self._idle.set()
        self.worker = Worker(_DirectLink(self), interruptible=True)

    def request(
        self, name: str, body: Message, answers: Mapping[str, Answer]
    ) -> tuple[Message, bytes | None]:
        """Does it."""
        self._answers, before = dict(answers), self._answers
        if name == "compute":
            self.stopped = False  # that was of a stage before
        try:
            return handle(self.worker, name, body)
        finally:
            self._answers = before

    def close(self) -> None:
        """Gives the buffer back."""
        self.buffer.close()

    def freed(self) -> None:
        """The buffer may be written to."""
        self._free.set()

    def committed(self) -> None:
        """Another commit may begin."""
        self._idle.set()

    def stop(self) -> None:
        """The work is of no use any more."""
        self.stopped = True


class _DirectLink:
    """The way from the numbers to the orchestration where both are one process."""

    def __init__(self, trainer: InlineTrainer) -> None:
        self._trainer = trainer

    @property
    def buffer(self) -> Buffer:
        return self._trainer.buffer

    @property
    def interrupted(self) -> bool:
        return self._trainer.interruption.came

    @property
    def stopped(self) -> bool:
        return self._trainer.stopped

    @property
    def can_commit(self) -> bool:
        return self._trainer._idle.is_set() and self._trainer._free.is_set()  # noqa: SLF001 - its half

    def notice(self, text: str) -> None:
        self._trainer.reporter.notice(text)

    def live(self, live: Live) -> None:
        self._trainer.tell_live(asdict(live))

    def report(self, what: Told, /, **body: Any) -> None:
        self._trainer.tell_report(what, body)

    def alive(self) -> None:
        """Whoever waits for this thread sees it work."""

    def ask(self, question: str, **given: Any) -> Any:
        return self._trainer.answer(question, given, None)[0]

    def ask_bytes(self, question: str, data: bytes | None = None, **given: Any) -> bytes:
        return self._trainer.answer(question, given, data)[1] or b""

    def wait_for_buffer(self) -> None:
        self._trainer._free.wait()  # noqa: SLF001 - its half

    def claim_buffer(self) -> None:
        self._trainer.give_up_commit()
        self.wait_for_buffer()
        self._trainer._free.clear()  # noqa: SLF001 - its half

    def prepare(self, size: int) -> None:
        self._trainer.prepare(size)

    def commit(self, **commit: Any) -> None:
        self._trainer._free.clear()  # noqa: SLF001 - its half
        self._trainer._idle.clear()  # noqa: SLF001 - its half
        self._trainer.begin_commit(commit)
