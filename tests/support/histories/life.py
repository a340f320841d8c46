"""One life of a run, in a process of its own that was forked for it: it trains, and may be ended.

What it does to the product's classes and to the storage is gone with the process.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from support.histories.commit_thread import CommitRule, CommitThread, commit_by
from support.histories.draw import LASTING
from support.histories.history import Fault
from support.histories.judge import left_by, noting_parts, noting_what_is_set_aside
from support.histories.turnstile import Gate
from support.runs.bare_run import BareRun
from support.runs.forked_runs import BROKEN, STOPPED
from support.trainers.forked_trainer import ForkedProcess

from epochal.data.errors import EpochalError
from epochal.data.store import open as opening
from epochal.data.store import retry
from epochal.data.store.backend import TEMPORARY, Backend, R, T
from epochal.data.store.open import open_store
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import KILLED, FaultPlan
from epochal.tasks.computing.watch import EpochWatch
from epochal.tasks.launch import trainer_process
from epochal.tasks.upkeep import find_garbage, remove_garbage, verify_store

PLACES = ("store", "disk", "process")


@dataclass(frozen=True)
class Order:
    """What a life is to do.

    what: `run`, or what else works on the store: `second`, `gc`, `verify`. seed: of the history;
    number: of the life in it. faults: with the operation at which each begins, from 1. answer: the
    file for its `Answer`; parts: for the points of epochs at work. alone: whether no other process
    is at work on the store.
    """

    what: str
    config: Path
    store: str
    seed: int
    number: int
    answer: Path
    parts: Path
    processes: int = 1
    faults: tuple[tuple[Fault, int], ...] = ()
    alone: bool = True


@dataclass(frozen=True)
class Answer:
    """What a life tells. found: what it left, where it came to its end. counts: place →
    operations; `reads` are those of the store that read. reached: of its faults. trace: a digest
    of its operations, in order.
    """

    found: Mapping[str, Any] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    reached: tuple[bool, ...] = ()
    trace: str = ""
    error: str | None = None

    @classmethod
    def read(cls, path: Path) -> Answer:
        """What a life has written, or nothing where it was ended before.

        Without names that are others at each replay: of the folder, of files by their time.
        """
        if not path.exists():
            return cls()
        text = path.read_text().replace(str(path.parent), "…")
        return cls(**json.loads(_RANDOM.sub(r"\1…", text)))


_RANDOM = re.compile(r"(fingerprints/|tmp/preflight-)[0-9a-f-]+")


def live(order: Order, gate: Gate) -> None:
    """Does it, and ends the process."""
    logging.getLogger("epochal").setLevel(logging.ERROR)  # it warns of each flipped bit
    code, life = BROKEN, _Life(order, gate)
    try:
        life()
        code = 0
    except EpochalError as error:
        code = STOPPED if error.exit_code in {2, 75} else BROKEN
        life.error = traceback.format_exc() if code == BROKEN else str(error)
    except BaseException:  # noqa: BLE001 - a child must end here, whatever it was
        life.error = traceback.format_exc()
    finally:
        life.end(code)


class _Life:
    def __init__(self, order: Order, gate: Gate) -> None:
        self.order, self.error = order, None
        self._gate = None if order.alone else gate
        self._found: Mapping[str, Any] | None = None
        self._trace = sha256()
        self._steps = 0
        self._at_end = False
        self._threads = CommitThread(Random(f"thread/{order.seed}/{order.number}/{order.what}"))
        self._plans = [
            None
            if fault.where == "process"
            else FaultPlan(
                fault.kind,  # type: ignore[arg-type]
                at=at,
                count=fault.count,
                level=fault.where,  # type: ignore[arg-type]
                die=self._die,
            )
            for fault, at in order.faults
        ]
        self._counts = {
            "store": FaultPlan(),
            "reads": FaultPlan("flip"),
            "disk": FaultPlan(level="disk"),
        }

    def __call__(self) -> None:
        order = self.order
        lasting = any(fault.count == LASTING for fault, _ in order.faults)
        os.environ[retry.VARIABLE] = "0" if lasting else "60"
        retry.FIRST_PAUSE_S = retry.MAX_PAUSE_S = 0.001
        noting_what_is_set_aside(order.parts.parent)
        plans = [*self._counts.values(), *(plan for plan in self._plans if plan is not None)]
        with injected(plans[0], *plans[1:]), self._in_turn():
            if order.what == "gc":
                _collect(order.store)
            elif order.what == "verify":
                report = verify_store(open_store(order.store))
                self._found = {"problems": list(report.problems)}
            else:
                self._train()

    def _train(self) -> None:
        order = self.order
        rule = CommitRule.of(order.seed)
        alone = order.processes == 1
        commit_by(
            rule if alone else CommitRule(rule.every, rule.first, beside=False), self._threads
        )
        self._end_at_micro_steps()
        sets: dict[str, Any] = {"launch__kind": "inline"}
        if not alone:
            sets = {"launch__kind": "local", "launch__processes": order.processes}
            names = {**vars(trainer_process.subprocess), "Popen": ForkedProcess}
            trainer_process.subprocess = SimpleNamespace(**names)  # type: ignore[attr-defined]
        run = BareRun(order.config, store=order.store, **sets)
        try:
            noting_parts(run, order.parts)
            run()
            self._threads.run_all()
            if order.what == "run":
                _collect(order.store)
            self._found = left_by(run, order.parts)
        finally:
            if not alone:
                run.session.trainer.close()

    def _end_at_micro_steps(self) -> None:
        """Counts the micro-steps of the process that trains, and ends it where a fault says so."""
        call = EpochWatch.__call__
        due = [
            (index, fault, at)
            for index, (fault, at) in enumerate(self.order.faults)
            if fault.where == "process"
        ]

        def counted(watch: EpochWatch, progress: Any) -> None:
            self._steps += 1
            for index, fault, at in due:
                rank = 0 if progress.group is None else progress.group.rank
                if self._steps == at and rank == fault.rank and self._first_time(index):
                    if fault.kind == "kill":
                        self._end_here(progress.group)
                    else:
                        os.kill(os.getpid(), signal.SIGTERM)
            call(watch, progress)

        EpochWatch.__call__ = counted  # type: ignore[method-assign]

    def _end_here(self, group: Any) -> None:
        if group is None:
            self._die()
        os.kill(os.getpid(), signal.SIGKILL)  # a rank: the run starts its processes again

    def _first_time(self, index: int) -> bool:
        """Whether that fault has not been yet, in this life; it is noted."""
        try:
            self._mark(index).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _mark(self, index: int) -> Path:
        return self.order.answer.with_suffix(f".{index}")

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Has each operation of a store wait for its turn, and notes it."""
        original = opening.backend_at

        def in_turn(address: str) -> Backend:
            return _InTurn(original(address), self._before)  # type: ignore[return-value]

        with ExitStack() as stack:
            opening.backend_at = in_turn
            stack.callback(setattr, opening, "backend_at", original)
            yield

    def _before(self, name: str, path: str) -> None:
        self._threads.before_operation()
        if self._gate is not None:
            self._gate()
        top = path.partition("/")[0]
        # Names there are random, or of the data's files by their time.
        shown = top if top in {TEMPORARY, "fingerprints"} else path
        self._trace.update(f"{name} {shown}\n".encode())

    def _die(self) -> None:
        self.end(KILLED)

    def end(self, code: int) -> None:
        """Tells what came of it, and ends the process as SIGKILL does."""
        reached = tuple(
            self._mark(index).exists() if plan is None else plan.hit
            for index, plan in enumerate(self._plans)
        )
        counts = {name: len(plan.operations) for name, plan in self._counts.items()}
        answer = Answer(
            found=self._found if code == 0 else None,
            counts={**counts, "process": self._steps},
            reached=reached,
            trace=self._trace.hexdigest(),
            error=self.error,
        )
        self.order.answer.write_text(json.dumps(vars(answer)))
        os._exit(code)


def _collect(store: str) -> None:
    opened = open_store(store)
    remove_garbage(opened, find_garbage(opened))


class _InTurn:
    """A backend that asks before each operation."""

    def __init__(self, inner: Backend, before: Callable[[str, str], None]) -> None:
        self._inner, self._before = inner, before
        self.exclusive = inner.exclusive

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self._inner, name)

        def in_turn(path: str = "", *given: Any, **named: Any) -> Any:
            self._before(name, path)
            return operation(*([path] if name != "scratch" else []), *given, **named)

        return in_turn

    def forget(self, path: str) -> None:
        self._inner.forget(path)

    def unfinished_uploads(self, *, quiet_s: float) -> list[Any]:
        return self._inner.unfinished_uploads(quiet_s=quiet_s)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other: in the same order each time."""
        return [function(item) for item in items]
