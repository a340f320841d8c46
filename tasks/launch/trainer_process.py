"""A trainer's process, seen from outside: started, its output printed, asked where it is, ended.

It is a process group of its own: what the user's code has started and left ends with it, and a
terminal's Ctrl-C is no business of theirs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from epochal.data.errors import TrainingFailed
from epochal.tasks.launch.failures import Place, fatal_place, place_in_dump
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.output import print_all, to_nobody
from epochal.tasks.trainer.channel import LOST_CHANNEL
from epochal.tasks.trainer.interruption import DUMP_SIGNAL
from epochal.tasks.user_code.import_path import path_without_folders

FOREIGN = ("PREFECT_", "MLFLOW_", "DATABRICKS_", "EPOCHAL_TOKEN")
"""Beginnings of variables of the orchestration and of trackers: a trainer has none of them."""
END_WITHIN_S = 5.0
_BOOT = (
    "import json, sys; given = json.loads(sys.argv.pop()); sys.path[:] = given['path']; "
    "from epochal.tasks.launch.trainer_main import main; main(given)"
)
_DUMP_WITHIN_S, _LOOK_EVERY_S = 1.0, 0.02
_MOST_TRACES = 1 << 20


@dataclass(frozen=True)
class Standing:
    """Where a process is. answered: whether it could be asked. begun: whether it can be by now."""

    answered: bool
    place: Place
    begun: bool = True


class TrainerProcess:
    """Runs until it is ended, or this process is.

    channel, buffer: descriptors for it. ended: called in a thread when the process is gone.
    printed: called in a thread with each line of its output. place:
    among several that share the work; what such a one prints has its rank before each line.
    """

    def __init__(
        self,
        *,
        channel: int,
        buffer: int,
        ended: Callable[[], None],
        printed: Callable[[str], None] = to_nobody,
        rank: Rank | None = None,
    ) -> None:
        self._traces = _traces_file()
        given: dict[str, Any] = {
            "path": path_without_folders(),
            "channel": channel,
            "buffer": buffer,
            "traces": self._traces,
            "parent": os.getpid(),
            "rank": None if rank is None else asdict(rank),
        }
        listening = [] if rank is None or rank.listening is None else [rank.listening]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        begin = partial(
            subprocess.Popen,
            [sys.executable, "-P", "-c", _BOOT, json.dumps(given)],
            pass_fds=(channel, buffer, self._traces, *listening),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            process_group=0,
        )
        begun: Future[subprocess.Popen[bytes]] = Future()
        self._threads = [_started(_live, begin, begun, ended)]
        self._process = begun.result()
        self._finalizer = weakref.finalize(self, _kill_all, self._process)
        for pipe, name in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert pipe is not None
            label = "" if rank is None else f"rank {rank.number}: "
            self._threads.append(_started(print_all, pipe, name, label, printed))

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def send(self, number: int) -> None:
        """Sends it and what it has started a signal."""
        _send_to_all(self._process, number)

    def kill(self) -> None:
        """Ends it and what it has started, at once."""
        _kill_all(self._process)

    def end(self, *, within_s: float) -> None:
        """Waits for its end, which is forced if it does not come."""
        self._finalizer.detach()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self._finish()
        os.close(self._traces)

    def _finish(self) -> int:
        _kill_all(self._process)
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it where no signal reaches it
            self._process.wait(END_WITHIN_S)
        for thread in self._threads:
            thread.join(END_WITHIN_S)
        code = self._process.returncode
        return -signal.SIGKILL if code is None else code

    # --- where it is --------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Where Python is at: in the process, or in one of the loader that it may wait for."""
        if Path("/proc/self/status").exists() and not _catches(self.pid, DUMP_SIGNAL):
            return Standing(answered=False, place=Place(), begun=False)  # it would be ended by it
        place = self._asked(self.pid)
        if place is None:
            return Standing(answered=False, place=Place())
        if place.trace is None:
            for worker in _children(self.pid):
                if _catches(worker, DUMP_SIGNAL):
                    of_worker = self._asked(worker)
                    if of_worker is not None and of_worker.trace is not None:
                        return Standing(answered=True, place=of_worker)
        return Standing(answered=True, place=place)

    def noted(self) -> int:
        """How much of traces there is so far."""
        return os.fstat(self._traces).st_size

    def crashed_since(self, noted: int) -> Place:
        """Where the process, or one that was forked from it, has crashed or ended itself."""
        return fatal_place(self._read(noted))

    def _asked(self, pid: int) -> Place | None:
        before = self.noted()
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, DUMP_SIGNAL)
        never, until_s, size = threading.Event(), time.monotonic() + _DUMP_WITHIN_S, before
        while time.monotonic() < until_s:  # until it grows no more
            never.wait(_LOOK_EVERY_S)
            last, size = size, self.noted()
            if size == last > before:
                return place_in_dump(self._read(before))
        return None

    def _read(self, start: int) -> str:
        return os.pread(self._traces, _MOST_TRACES, start).decode(errors="replace")

    # --- how it ended -------------------------------------------------------------------------

    def death(self, label: str | None, noted: int) -> TrainingFailed:
        """What its end means, which nobody has asked for.

        label: of the stage that it was at, if it was at one. noted: how much of traces there was
        before.
        """
        with suppress(subprocess.TimeoutExpired):  # it may have closed its end, and live
            self._process.wait(END_WITHIN_S)
        lives = self._process.returncode is None
        code = self._finish()
        code = LOST_CHANNEL if lives else code
        place = self.crashed_since(noted)
        return died(f"{_how(code)}{place.where}. {_why(code)}", label, place.trace)


@contextmanager
def stopped_with_this_process(
    send: Callable[[int], None], *, woken: Callable[[], None]
) -> Iterator[None]:
    """Inside the block Ctrl-Z stops trainers too, until both go on.

    send: gives them a signal. woken: called then. Nothing changes outside the main thread, nor
    where SIGTSTP is ignored or has a handler.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL
    ):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        send(signal.SIGSTOP)
        stop_this_process()
        send(signal.SIGCONT)
        woken()

    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def stop_this_process() -> None:
    """Comes back when it is told to go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def died(told: str, label: str | None, trace: str | None) -> TrainingFailed:
    """A process is gone, as is told; label: of the stage that it was at."""
    error = TrainingFailed(told if label is None else f"{label}: {told}. {INTACT}")
    error.trace = trace
    return error


INTACT = "What was committed is intact, and the same command goes on from there"


def _how(code: int) -> str:
    if code == LOST_CHANNEL:
        return (
            "the code that it runs has closed descriptors that are not its own, the trainer "
            "process's way to this one among them"
        )
    if code >= 0:
        return f"the code that it ran has ended the trainer process with exit code {code}"
    return f"the trainer process was ended by {signal.Signals(-code).name}"


def _why(code: int) -> str:
    if code == LOST_CHANNEL:
        return "Close what your code has opened, no range as os.closerange() does"
    if code >= 0:
        return "os._exit() does that: raise an exception instead, which says what is wrong"
    if -code == signal.SIGKILL:
        return (
            "The kernel does that where memory runs out: a smaller batch, fewer workers or a "
            "smaller model need less"
        )
    if -code in _OF_CRASHES:
        return "A library that is no Python has crashed"
    return "Somebody has sent that signal"


_OF_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """The process and all of its group: of a run that nobody has closed, too."""
    _send_to_all(process, signal.SIGKILL)


def _send_to_all(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # nobody is left in its group
        os.killpg(process.pid, number)


def _started(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(
        target=target, args=arguments, name=f"trainer{target.__name__}", daemon=True
    )
    thread.start()
    return thread


def _live(
    begin: Callable[[], subprocess.Popen[bytes]],
    begun: Future[subprocess.Popen[bytes]],
    ended: Callable[[], None],
) -> None:
    """The thread of a process from its beginning to its end, with which the kernel would end it.

    The end is told from here: children that it has forked may hold its end of the channel open.
    """
    try:
        process = begin()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        begun.set_exception(error)
        return
    begun.set_result(process)
    process.wait()
    ended()


def _children(pid: int) -> Sequence[int]:
    """What the process has started; nothing where the system does not tell."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal, which would else end it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught: Mapping[str, str] = dict(line.split(":", 1) for line in lines if ":" in line)
    return bool(int(caught.get("SigCgt", "0"), 16) >> (number - 1) & 1)


def _traces_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("epochal-traces")
    descriptor, path = tempfile.mkstemp(prefix="epochal-traces-")
    os.unlink(path)  # noqa: PTH108 - only the descriptor is left of it
    return descriptor
