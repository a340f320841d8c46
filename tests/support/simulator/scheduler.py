"""Who runs next: threads of which only one holds the baton, given on by a random generator.

Every thread of the simulation is a real one, which runs until it reaches a switch point: an
operation of the storage, a message, a collective, a wait, a sleep. There the generator chooses
among those that can go on. Where none can, the clock jumps to the earliest moment that one of them
waits for; where there is no such moment either, nobody will ever go on: that is a deadlock.
"""

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

STEP_S = 1e-4
"""What a switch takes, so that whoever looks at the clock again and again sees it move."""
MOST_SWITCHES = 400_000
"""Of one history: far more than any has; whoever takes more goes round in a circle."""


class Killed(BaseException):
    """This simulated process was ended: its threads end at their next switch point."""


@dataclass(eq=False)
class Process:
    """A simulated process. parent: with which it ends. computes: whether numbers depend on it.

    numbers: the state of the generators that are global to a process, while another one computes;
    at first a seed, another one for each process: nothing may depend on it.
    ended: called when it is gone.
    """

    name: str
    parent: "Process | None" = None
    computes: bool = False
    alive: bool = True
    stopped: bool = False
    code: int | None = None
    numbers: object = 0
    children: "list[Process]" = field(default_factory=list)
    ended: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self):
        if self.parent is not None:
            self.parent.children.append(self)


@dataclass(eq=False)
class Task:
    """A thread of a simulated process. ready: whether it can go on; deadline_s: or from when on."""

    name: str
    process: Process | None
    thread: threading.Thread | None = None
    baton: threading.Lock = field(default_factory=threading.Lock)
    ready: Callable[[], bool] | None = None
    deadline_s: float | None = None
    ended: bool = False
    waits_for: str = ""

    def can_go_on(self, now_s: float) -> bool:
        if self.process is not None:
            if not self.process.alive:
                return True
            if self.process.stopped:
                return False
        if self.deadline_s is not None and self.deadline_s <= now_s:
            return True
        return self.deadline_s is None if self.ready is None else self.ready()


class Scheduler:
    """The threads of one history. The one that makes it is the first: it drives the others."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"schedule {seed}")
        self.now_s = 1000.0
        self.deadlock: str | None = None
        self._trace = hashlib.sha256()
        self.events = 0
        self.log: list[str] | None = None
        self._switches = 0
        self._driver = Task("driver", None, threading.current_thread())
        self._driver.baton.acquire()
        self._tasks = [self._driver]
        self._current = self._driver
        self._loaded: Process | None = None
        self._here = threading.local()
        self._here.task = self._driver

    # --- what happens ------------------------------------------------------------------------

    @property
    def trace(self) -> str:
        """The digest of all that happened so far, in order."""
        return self._trace.hexdigest()

    def note(self, what: str) -> None:
        """Adds something to the trace."""
        line = f"{self.now_s:.4f} {self._current.name} {what}"
        self.events += 1
        self._trace.update(line.encode() + b"\n")
        if self.log is not None:
            self.log.append(line)

    @property
    def task(self) -> Task | None:
        """The thread that asks, or None where it is none of the simulation."""
        return getattr(self._here, "task", None)

    @property
    def process(self) -> Process | None:
        """The simulated process that asks."""
        task = self.task
        return None if task is None else task.process

    @property
    def under_way(self) -> bool:
        """Whether there is anything of no process: a request for whose answer nobody waits."""
        return any(task.process is None for task in self._tasks if task is not self._driver)

    # --- threads -----------------------------------------------------------------------------

    def spawn(self, process: Process | None, name: str, target: Callable[[], object]) -> Task:
        """A further thread, which begins when it is given the baton."""
        task = Task(name, process)
        task.baton.acquire()
        task.thread = threading.Thread(
            target=self._run, args=(task, target), name=name, daemon=True
        )
        self._tasks.append(task)
        task.thread.start()
        return task

    def _run(self, task: Task, target: Callable[[], object]) -> None:
        self._here.task = task
        task.baton.acquire()
        try:
            self._check(task)
            target()
        except Killed:
            pass
        task.ended = True
        self._tasks.remove(task)
        self._give_on()

    def switch(self, what: str) -> None:
        """A switch point: others may go on. Raises Killed where this process was ended."""
        task = self.task
        if task is None:
            return
        self._check(task)
        self.note(what)
        self._suspend(task)

    def wait(self, ready: Callable[[], bool], what: str, timeout_s: float | None = None) -> bool:
        """Until `ready` holds, or the time is over: which of the two. Raises Killed."""
        task = self.task
        assert task is not None, f"{what} outside of the simulation"
        self._check(task)
        until_s = None if timeout_s is None else self.now_s + max(timeout_s, 0.0)
        task.ready, task.deadline_s, task.waits_for = ready, until_s, what
        try:
            self._suspend(task)
        finally:
            task.ready = task.deadline_s = None
            task.waits_for = ""
        return ready()

    def sleep(self, seconds: float) -> None:
        """For so long, by the clock of the simulation."""
        self.wait(_never, "sleep", seconds)

    def _suspend(self, task: Task) -> None:
        chosen = self._chosen()
        if chosen is not task:
            self._hand_to(chosen)
            task.baton.acquire()
        self._check(task)

    def _give_on(self) -> None:
        self._hand_to(self._chosen())

    def _hand_to(self, task: Task) -> None:
        self._current = task
        process = task.process
        if process is not None and process.computes and process is not self._loaded:
            if self._loaded is not None:
                self._loaded.numbers = saved_numbers()
            self._loaded = process
            load_numbers(process.numbers)
        task.baton.release()

    def _check(self, task: Task) -> None:
        if task.process is not None and not task.process.alive:
            raise Killed

    def _chosen(self) -> Task:
        self._switches += 1
        self.now_s += STEP_S
        if self._switches > MOST_SWITCHES and self.deadlock is None:
            self._end_all(f"more than {MOST_SWITCHES} switches")
        while True:
            able = [task for task in self._tasks if task.can_go_on(self.now_s)]
            if able:
                return able[0] if len(able) == 1 else self.random.choice(able)
            moments = [
                task.deadline_s
                for task in self._tasks
                if task.deadline_s is not None and not (task.process and task.process.stopped)
            ]
            if moments:
                self.now_s = max(self.now_s, min(moments))
                continue
            if self.deadlock is not None:
                message = f"the driver waits for ever: {self.deadlock}"
                raise RuntimeError(message)
            waiting = ", ".join(f"{task.name}: {task.waits_for}" for task in self._tasks)
            self._end_all(f"nobody can go on ({waiting})")

    def _end_all(self, why: str) -> None:
        self.deadlock = why
        self.kill_all()

    # --- processes ---------------------------------------------------------------------------

    def kill(self, process: Process, code: int = -9) -> None:
        """Ends a process and those that end with it: nothing of theirs happens any more."""
        if not process.alive:
            return
        process.alive, process.code = False, code
        for child in process.children:
            self.kill(child)
        for told in process.ended:
            told()

    def kill_all(self) -> None:
        """Ends all processes."""
        for process in [task.process for task in self._tasks if task.process is not None]:
            self.kill(process)

    def is_over(self, process: Process) -> bool:
        """Whether none of its threads is left."""
        return not any(task.process is process for task in self._tasks)


def _never() -> bool:
    return False


def saved_numbers() -> object:
    """The state of the generators that a process has, and how many threads torch may use."""
    import numpy as np
    import torch

    return (
        torch.get_rng_state(),
        np.random.get_state(),
        random.getstate(),
        torch.get_num_threads(),
    )


def load_numbers(state: object) -> None:
    """Puts it back; a number: as a process begins whose system has given it that one as a seed."""
    import numpy as np
    import torch

    if isinstance(state, int):
        torch.manual_seed(state)
        np.random.seed(state)
        random.seed(state)
        return
    of_torch, of_numpy, of_python, threads = state
    torch.set_rng_state(of_torch)
    np.random.set_state(of_numpy)
    random.setstate(of_python)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
