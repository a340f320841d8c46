"""Runs histories by real processes, on a store in a folder.

Each life is forked from a process that has imported everything and trained once. The store, its
faults, the stages and the thread that stores commits are as they are in a run; there is no Prefect
and no MLflow. All that happens follows from the history: the operations of the store come in one
order, of several threads and processes too. What is not in anybody's hand are the messages of
several ranks: there each commit is waited for, and a rank that is killed may end the others a
micro-step earlier or later. Nor do system calls below a store interleave: an operation is whole.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import torch
from support.histories.history import MORE_LIVES, Ending, Fault, History, Life, WayLeft
from support.histories.judge import differences
from support.histories.life import Answer, Order, live
from support.histories.project import history_project
from support.histories.turnstile import Child, Hung, Turnstile
from support.runs.bare_run import BareRun
from support.runs.forked_runs import BROKEN
from support.runs.project import environment


@dataclass(frozen=True)
class Unbroken:
    """What an unbroken run of a config leaves. counts: place → operations of its one life."""

    found: Mapping[str, Any]
    counts: Mapping[str, int]
    config: Path


@dataclass
class Forked:
    """Runs histories in a folder, one at a time; others need their own folder and process.

    expected: where unbroken ends are kept, for other processes too; None: nowhere.
    """

    folder: Path
    expected: Path | None = None
    _unbroken: dict[str, Unbroken] = field(default_factory=dict)

    def unbroken(self, config: Mapping[str, Any]) -> Unbroken:
        """The end of that config's run, computed once. AssertionError if it does not end well."""
        name = sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
        if name not in self._unbroken:
            project = history_project(self.folder / f"project-{name}", config)
            with environment(HOME=str(self.folder / "home")):
                self._warm(project.config)
                kept = None if self.expected is None else self.expected / f"{name}.json"
                if kept is None or not kept.exists():
                    found, counts = self._computed(project.config, config)
                    if kept is not None:
                        kept.write_text(json.dumps([found, counts]))
                else:
                    found, counts = json.loads(kept.read_text())
            self._unbroken[name] = Unbroken(found, counts, project.config)
        return self._unbroken[name]

    def _computed(
        self, path: Path, config: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, int]]:
        self._begin_anew()
        child, answer, _ = self._life(self._order(path, History(0, config, ())))
        assert child.code == 0, answer.error
        assert answer.found is not None
        assert answer.found["problems"] == [], answer.found["problems"]
        return answer.found, answer.counts

    def _warm(self, config: Path) -> None:
        """One thread in torch, for a pool of threads does not survive a fork."""
        if not self._unbroken:
            BareRun(config, store=f"file://{self.folder / 'warm'}")()
            torch.set_num_threads(1)

    def _begin_anew(self) -> None:
        for name in ("store", "parts"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "parts").mkdir()

    def ended(self, history: History) -> Ending:
        """How it ended."""
        unbroken = self.unbroken(history.config)
        self._begin_anew()
        with environment(HOME=str(self.folder / "home")):
            return self._ended(history, unbroken)

    def _ended(self, history: History, unbroken: Unbroken) -> Ending:
        trace, notes, reached = sha256(), [], []
        differs: list[str] = []
        lives = [*history.lives, *(Life() for _ in range(MORE_LIVES))]
        left = WayLeft(unbroken.counts)
        for number, life in enumerate(lives):
            order = self._order(unbroken.config, history, number, life, left)
            try:
                child, answer, told = self._life(order, life, unbroken)
            except Hung as hung:
                return Ending(broken=str(hung), lives=number + 1, notes=tuple(notes))
            left.take_off(answer.counts)
            trace.update(f"{child.code} {answer.trace} {' '.join(told.order)}".encode())
            if number < len(history.lives):
                reached += answer.reached or (False,) * len(life.faults)
            notes.append(f"life {number}: {_words(child, answer)}{told.words}")
            broken = answer.error if child.code == BROKEN else told.broken
            if broken is None and not history.lied(number + 1):
                met = any(answer.reached) and number < len(history.lives)
                broken = _stopped_by_nothing(child, answer, met=met) or told.stopped
            differs += told.differs
            if broken is not None:
                return Ending(
                    tuple(differs), reached=tuple(reached), broken=broken, lives=number + 1,
                    trace=trace.hexdigest(), notes=tuple(notes),
                )  # fmt: skip
            if number >= len(history.lives) and answer.found is not None:
                lied = history.lied(len(history.lives))
                differs += differences(unbroken.found, answer.found, lied=lied)
                break
        whole = answer.found is not None
        return Ending(
            tuple(differs), whole, tuple(reached), None, number + 1, trace.hexdigest(), tuple(notes)
        )

    def _order(
        self,
        config: Path,
        history: History,
        number: int = 0,
        life: Life | None = None,
        left: WayLeft | None = None,
    ) -> Order:
        life, left = life or Life(), left or WayLeft({})
        return Order(
            "run",
            config,
            store=f"file://{self.folder / 'store'}",
            seed=history.seed,
            number=number,
            answer=self.folder / "answer.json",
            parts=self.folder / "parts" / "parts.jsonl",
            processes=life.processes,
            faults=tuple((fault, _operation(fault, left, life.processes)) for fault in life.faults),
            alone=not life.beside,
        )

    def _life(
        self, order: Order, life: Life | None = None, unbroken: Unbroken | None = None
    ) -> tuple[Child, Answer, _Beside]:
        """One process's try, and what works beside it."""
        for path in self.folder.glob("answer*"):
            path.unlink()
        first = Child.fork("run", partial(live, order))
        beside = list(life.beside) if life is not None else []
        later, orders = [], []
        for index, (what, at) in enumerate(beside):
            other = Order(
                what, order.config, order.store, order.seed, order.number,
                answer=self.folder / f"answer-{index}.json",
                parts=self.folder / "parts" / "parts.jsonl",
                alone=False,
            )  # fmt: skip
            orders.append(other)
            assert unbroken is not None
            begins = int(at * unbroken.counts["store"])
            name = f"{what}-{index}"
            later.append((begins, partial(Child.fork, name, partial(live, other))))
        turnstile = Turnstile(Random(f"turns/{order.seed}/{order.number}"))
        children = turnstile.run(first, later)
        told = _Beside(turnstile.order)
        for child, other in zip(children[1:], _started(children, orders), strict=True):
            told.take(child, other.what, Answer.read(other.answer), unbroken)
        return first, Answer.read(order.answer), told


def _operation(fault: Fault, left: WayLeft, processes: int) -> int:
    """The first operation at which it fails, as that fault counts them."""
    operations = left.operations("reads" if fault.kind == "flip" else fault.where)
    if fault.where == "process":  # each has its share of the micro-steps
        operations = -(-operations // processes)
    return fault.operation(operations)


def _started(children: list[Child], orders: list[Order]) -> list[Order]:
    """The orders of those that began, in the order of the children."""
    return [orders[int(child.name.rpartition("-")[2])] for child in children[1:]]


@dataclass
class _Beside:
    """What came of those that were at work beside a life."""

    order: list[str]
    words: str = ""
    broken: str | None = None
    stopped: str | None = None
    differs: list[str] = field(default_factory=list)

    def take(self, child: Child, what: str, answer: Answer, unbroken: Unbroken | None) -> None:
        """Judges one of them."""
        self.words += f"; {what} beside it: {_words(child, answer)}"
        if child.code == BROKEN:
            self.broken = f"{what}: {answer.error}"
        elif child.code != 0:
            self.stopped = f"{what} beside a life was met by nothing, and {_words(child, answer)}"
        if what == "second" and answer.found is not None:
            assert unbroken is not None
            own = {
                **unbroken.found,
                **{name: answer.found[name] for name in ("digests", "records")},
            }
            self.differs += [f"second: {one}" for one in differences(unbroken.found, own)]


def _stopped_by_nothing(child: Child, answer: Answer, *, met: bool) -> str | None:
    """What is wrong with a life that has ended although nothing met it; None if it has not."""
    if met or child.code == 0:
        return None
    return f"nothing met it, and it {_words(child, answer)}"


def _words(child: Child, answer: Answer) -> str:
    """How a process ended, for a person."""
    if child.code == 0:
        return "went through"
    if child.code == 75:
        return f"stopped: {(answer.error or '').splitlines()[0][:160]}"
    return f"killed ({child.code})"


@cache
def _own(_pid: int) -> Forked:
    folder = Path(tempfile.mkdtemp(prefix="epochal-histories-"))
    (folder / "home").mkdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Forked(folder)


def ended(history: History) -> Ending:
    """How the history ends by forked processes, in a temporary folder of this process."""
    return _own(os.getpid()).ended(history)
