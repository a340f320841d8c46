"""The thread that stores commits inside epochs, made to run in an order that a seed decides.

The thread is the product's own. It waits before each operation of the store until the training lets
it do some: a number that is drawn at each micro-step, and now and then between operations of the
main thread. So a commit may be stored at once, over several micro-steps, or still be on its way
when its epoch is done; and a replay has the same order. Whoever waits for the thread runs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from epochal.tasks.checkpoints.commit_writer import CommitWriter, EpochCommit
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.launch.inline import _DirectLink
from epochal.tasks.launch.process_link import ProcessLink

if TYPE_CHECKING:
    from epochal.engine.loop.progress import Progress

MOST_AT_ONCE = 12
"""Operations that the thread may do at one micro-step; a commit takes some ten."""


@dataclass(frozen=True)
class CommitRule:
    """When an epoch commits, and how its thread runs.

    every, first: at micro-steps first, first + every, …. beside: whether the thread runs beside the
    training, or each commit is waited for.
    """

    every: int
    first: int
    beside: bool

    @classmethod
    def of(cls, seed: int) -> CommitRule:
        """The one of that history."""
        draw = Random(f"commits/{seed}")
        every = draw.choice((2, 3, 5, 9))
        return cls(every, draw.randint(1, every), draw.random() < 0.6)

    def due(self, progress: Progress, *, whole_updates: bool) -> bool:
        """Whether a commit belongs here. whole_updates: the epoch can go on only between two.

        Of them it has few, so that commits come after each, each second or each third.
        """
        if not whole_updates:
            return progress.micro_steps % self.every == self.first % self.every
        every = -(-self.every // 3)
        return progress.updates % every == self.first % every


@dataclass
class CommitThread:
    """Who may go on: the thread of commits, or the one that trains."""

    draw: Random
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)
    _waiting: set[threading.Thread] = field(default_factory=set)
    _let: set[threading.Thread] = field(default_factory=set)
    _ended: set[threading.Thread] = field(default_factory=set)

    def before_operation(self) -> None:
        """Called before each operation of a store, by whichever thread."""
        own = threading.current_thread()
        if own not in self._threads:
            if self.draw.random() < 0.1:
                self.run(1)
            return
        with self._turn:
            self._waiting.add(own)
            self._turn.notify_all()
            self._turn.wait_for(lambda: own in self._let)
            self._let.remove(own)
            self._waiting.remove(own)

    def add(self, start: Callable[[], threading.Thread]) -> None:
        """Starts a thread, which stands before its first operation afterwards."""
        with self._turn:  # it ends its beginning once it is known
            thread = start()
            self._threads.append(thread)
        self._settle(thread)

    def ended(self) -> None:
        """Called by a thread as the last thing that it does."""
        with self._turn:
            self._ended.add(threading.current_thread())
            self._turn.notify_all()

    def known(self) -> None:
        """Called by a thread as the first thing that it does."""
        with self._turn:
            assert threading.current_thread() in self._threads

    def run(self, operations: int) -> None:
        """Lets the eldest thread do so many operations."""
        for _ in range(operations):
            if not self._threads:
                return
            thread = self._threads[0]
            with self._turn:
                self._let.add(thread)
                self._turn.notify_all()
                self._turn.wait_for(lambda one=thread: one not in self._let or one in self._ended)
            self._settle(thread)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Lets threads work until that is so, or none is left."""
        while self._threads and not done():
            self.run(1)

    def run_all(self) -> None:
        """Lets all come to their end."""
        self.run_until(lambda: False)

    def _settle(self, thread: threading.Thread) -> None:
        """Waits until the thread stands before an operation, or has ended."""
        with self._turn:
            self._turn.wait_for(lambda: thread in self._waiting or thread in self._ended)
            if thread not in self._ended:
                return
            self._ended.remove(thread)
            self._threads.remove(thread)
            self._let.discard(thread)
        thread.join()


def commit_by(rule: CommitRule, threads: CommitThread) -> None:
    """From now on this process commits by that rule, its thread in that order.

    To be called in a process that is there for one life: it changes the product's classes.
    """
    _commit_when_due(rule)
    if not rule.beside:
        _commit_at_once()
        return
    begin, work, end = CommitWriter.begin, CommitWriter._work, CommitWriter.end
    wait = _DirectLink.wait_for_buffer

    def begin_in_turn(self: CommitWriter, commit: EpochCommit) -> None:
        threads.run_all()

        def start() -> threading.Thread:
            begin(self, commit)
            assert self._thread is not None
            return self._thread

        threads.add(start)

    def work_in_turn(self: CommitWriter, *given: Any) -> None:
        threads.known()
        try:
            work(self, *given)
        finally:
            threads.ended()

    def end_in_turn(self: CommitWriter, **given: Any) -> None:
        threads.run_all()
        end(self, **given)

    def wait_in_turn(self: _DirectLink) -> None:
        threads.run_until(self._trainer._free.is_set)
        wait(self)

    due = MidEpochSaver.is_due

    def is_due(self: MidEpochSaver, progress: Progress) -> bool:
        threads.run(threads.draw.choice((0, 0, 1, 2, MOST_AT_ONCE)))
        return due(self, progress)

    CommitWriter.begin, CommitWriter._work = begin_in_turn, work_in_turn  # type: ignore[method-assign]
    CommitWriter.end = end_in_turn  # type: ignore[method-assign]
    _DirectLink.wait_for_buffer = wait_in_turn  # type: ignore[method-assign]
    MidEpochSaver.is_due = is_due  # type: ignore[method-assign]


def _commit_when_due(rule: CommitRule) -> None:
    def is_due(self: MidEpochSaver, progress: Progress) -> bool:
        due = rule.due(progress, whole_updates=self._whole_updates)
        return due and self.can_commit(progress) and self._link.can_commit

    MidEpochSaver.is_due = is_due  # type: ignore[method-assign]


def _commit_at_once() -> None:
    """Each commit is waited for, by this process and by those that train."""
    now, begin = MidEpochSaver.now, CommitWriter.begin

    def begin_and_wait(self: CommitWriter, commit: EpochCommit) -> None:
        begin(self, commit)
        assert self._thread is not None
        self._thread.join()

    def now_and_wait(self: MidEpochSaver, progress: Progress) -> None:
        now(self, progress)
        link = self._link
        while isinstance(link, ProcessLink) and not (link._idle and link._free):
            link._take(*link._receive())

    CommitWriter.begin = begin_and_wait  # type: ignore[method-assign]
    MidEpochSaver.now = now_and_wait  # type: ignore[method-assign]
