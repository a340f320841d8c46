"""A trainer process on this machine: started, talked to, watched, ended.

It has no Prefect, no MLflow and no store, and none of their variables. It ends with this process,
by SIGKILL too. What it prints is printed here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TextIO

from epochal.data.errors import TrainingFailed
from epochal.tasks.launch.failures import error_of, lines_in_dump, told_error
from epochal.tasks.trainer.answers import Answer
from epochal.tasks.trainer.channel import Channel, Message
from epochal.tasks.trainer.trainer import Trainer, now_s

FOREIGN = ("PREFECT_", "MLFLOW_", "DATABRICKS_")
"""Beginnings of variables of the orchestration and of trackers: a trainer has none of them."""
END_WITHIN_S = 5.0
_BOOT = (
    "import json, sys; given = json.loads(sys.argv.pop()); sys.path[:] = given['path']; "
    "from epochal.tasks.launch.trainer_main import main; main(given)"
)
_DUMP_WITHIN_S, _LOOK_EVERY_S = 2.0, 0.05


class _TrainerEnded(Exception):
    """The process is gone."""


@dataclass
class LocalTrainer(Trainer):
    """A process of its own."""

    _process: subprocess.Popen[bytes] | None = None
    _channel: Channel | None = None
    _traces: int = -1
    _printing: list[threading.Thread] = field(default_factory=list)
    _stopped: bool = False
    _asked: Exception | None = None

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._traces = os.memfd_create("epochal-traces") if hasattr(os, "memfd_create") else _file()
        passed = (theirs.fileno(), self.buffer.descriptor, self._traces)
        given = {
            "path": sys.path,
            "channel": passed[0],
            "buffer": passed[1],
            "traces": passed[2],
            "parent": os.getpid(),
            # The kernel's signal comes with the end of the thread that starts the process.
            "bound": threading.current_thread() is threading.main_thread(),
        }
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        self._process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-c", _BOOT, json.dumps(given)],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self._finalizer = weakref.finalize(self, _end_process, self._process)
        theirs.close()
        self._channel = Channel(ours.detach())
        for pipe, name in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert pipe is not None
            printer = threading.Thread(
                target=_print_all, args=(pipe, name), name=f"trainer-{name}", daemon=True
            )
            printer.start()
            self._printing.append(printer)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def request(
        self, name: str, body: Message, answers: Mapping[str, Answer]
    ) -> tuple[Message, bytes | None]:
        """Has it done there."""
        self._answers, self._asked = dict(answers), None
        try:
            self._send({"type": "request", "name": name, "body": body})
            return self._reply()
        except _TrainerEnded:
            raise self._death() from None
        except Exception:
            raise
        except BaseException:  # a signal that is obeyed at once: nobody waits for the reply
            self._kill()
            raise

    def close(self) -> None:
        """Ends the process, at once where it is at work."""
        process, self._process = self._process, None
        if process is None:
            return
        self._finalizer.detach()
        with suppress(OSError):
            self._send({"type": "end"}, to_nobody=True)
        try:
            process.wait(0.0 if self._stopped else END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for printer in self._printing:
            printer.join(END_WITHIN_S)
        if self._channel is not None:
            self._channel.close()
        os.close(self._traces)
        self.buffer.close()

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
        last_s, passed_on, told_silence = now_s(), False, False
        while True:
            if self.interruption.came and not passed_on:
                passed_on = True
                poll.unregister(signals)
                self._send({"type": "interrupt"})
            left_s = last_s + self.config.launch.silence_seconds - now_s()
            if passed_on:
                left_s = self.config.checkpoint.grace_seconds - self.interruption.since_s
            ready = poll.poll(None if told_silence and not passed_on else max(0.0, left_s) * 1000)
            if not ready:
                if passed_on:
                    self._give_up()
                told_silence = True
                self._tell_silence()
                continue
            if all(descriptor == signals for descriptor, _ in ready):
                continue
            last_s, told_silence = now_s(), False
            reply = self._take(*self._receive())
            if reply is not None:
                return reply

    def _take(self, message: Message, data: bytes | None) -> tuple[Message, bytes | None] | None:
        match message["type"]:
            case "reply":
                return message["reply"], data
            case "failure":
                failure = message["failure"]
                if self._asked is not None and told_error(self._asked)["text"] == failure["text"]:
                    raise self._asked  # of this process, which had been told there
                raise error_of(failure)
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

    def _give_up(self) -> None:
        """The trainer did not put its work down in time: it is ended, and the signal obeyed."""
        where, _ = lines_in_dump(self._dump())
        self.reporter.notice(
            "the trainer did not put its work down within "
            f"{self.config.checkpoint.grace_seconds:g} s (checkpoint.grace_seconds){where}: it is "
            "ended, and the run goes on from the last commit"
        )
        self._kill()
        self.interruption.obey()

    def _tell_silence(self) -> None:
        where, trace = lines_in_dump(self._dump())
        self.reporter.notice(
            f"no sign of the trainer for {self.config.launch.silence_seconds:g} s "
            f"(launch.silence_seconds); it is{where or ' in no file of yours'}"
            f"{f':{os.linesep}{trace}' if trace else ''}"
        )

    def _dump(self) -> str:
        """What Python is at in the trainer; empty where it does not answer."""
        from epochal.tasks.launch.trainer_main import DUMP_SIGNAL

        assert self._process is not None
        before = os.fstat(self._traces).st_size
        with suppress(ProcessLookupError):
            self._process.send_signal(DUMP_SIGNAL)
        never, until_s, size = threading.Event(), now_s() + _DUMP_WITHIN_S, before
        while now_s() < until_s:  # until it grows no more
            never.wait(_LOOK_EVERY_S)
            last, size = size, os.fstat(self._traces).st_size
            if size == last > before:
                break
        return os.pread(self._traces, 1 << 20, before).decode(errors="replace")

    def _kill(self) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def _death(self) -> TrainingFailed:
        """What the end of the process means: nobody has asked it to end."""
        assert self._process is not None
        code = self._process.wait()
        for printer in self._printing:
            printer.join(END_WITHIN_S)
        text = os.pread(self._traces, 1 << 20, 0).decode(errors="replace")
        where, trace = lines_in_dump(text.rpartition("Fatal Python error")[2] if code < 0 else "")
        error = TrainingFailed(f"{_how(code)}{where}; {_what_next(code)}")
        error.trace = trace
        return error


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """Of a run that nobody has closed."""
    process.kill()
    process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"the trainer process was ended by the code that it ran, with exit code {code}"
    return f"the trainer process was ended by {signal.Signals(-code).name}"


def _what_next(code: int) -> str:
    if code == -signal.SIGKILL:
        return (
            "the kernel does that where memory runs out: a smaller batch, fewer workers or a "
            "smaller model need less. What was committed is intact, and the same command goes on"
        )
    cause = "was it os._exit()?" if code >= 0 else "a library crashed"
    return f"{cause} What was committed is intact, and the same command goes on from there"


def _print_all(pipe: IO[bytes], name: str) -> None:
    """Prints what comes through the pipe, as far as lines are whole, to this process's output."""
    for line in iter(pipe.readline, b""):
        stream: TextIO = getattr(sys, name)
        with suppress(OSError, ValueError):
            stream.write(line.decode(errors="replace"))
            stream.flush()
    pipe.close()


def _file() -> int:
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="epochal-traces-")
    os.unlink(path)  # noqa: PTH108 - only the descriptor is left of it
    return descriptor
