"""Lives of one run: each a forked process that trains from what the store has, and may be ended.

Forked from a process that has imported and run everything once: 0.3 s each instead of some 5. One
thread in torch, for a pool of threads does not survive a fork.
"""

import json
import logging
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from support.runs.bare_run import BareRun
from support.runs.proof_project import commits_here

from epochal.data.errors import EpochalError
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import KILLED, READS, FaultPlan
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.computing.stage_times import TIMES
from epochal.tasks.goodput.totals import GOODPUT
from epochal.tasks.upkeep import find_garbage, remove_garbage, verify_store

STOPPED, BROKEN = 75, 99


@dataclass(frozen=True)
class Life:
    """How one life ended.

    found: what it left, if it came to its end; operations: of its plan; commits: inside epochs.
    reached: whether it met its plan's fault, which is sure of one that did not come to its end.
    """

    code: int
    found: dict | None = None
    operations: tuple[str, ...] = ()
    commits: int = 0
    reached: bool = True


@dataclass(frozen=True)
class Count:
    """How a sweep ended. stopped: first lives that ended with a named error; missed: those that
    came to their end and never met the fault.
    """

    points: int = 0
    killed: int = 0
    stopped: int = 0
    finished: int = 0
    missed: int = 0
    mismatches: tuple[int, ...] = ()

    def __add__(self, other):
        return Count(
            **{
                name: getattr(self, name) + getattr(other, name)
                for name in ("points", "killed", "stopped", "finished", "missed", "mismatches")
            }
        )

    @property
    def equal(self):
        return self.points - len(self.mismatches)


class Lives:
    """One run's config, its unbroken end, and sweeps of faults over it.

    address: gives the address of a new empty store of that name.
    """

    def __init__(self, config: Path, folder: Path, address: Callable[[str], str]) -> None:
        self.config, self.folder, self._address = config, folder, address
        self._made = 0

    @classmethod
    def on_files(cls, config: Path, folder: Path) -> "Lives":
        """Stores in folders."""

        def address(name):
            shutil.rmtree(folder / name, ignore_errors=True)
            return f"file://{folder / name}"

        return cls(config, folder, address)

    def prepare(self, level: str = "store") -> "Lives":
        """Warms up, and takes the unbroken run's end and its operations."""
        warm = BareRun(self.config, store=f"file://{self.folder / 'warm'}")()
        assert warm.weights
        self.unbroken = self.life(self._new_store(), FaultPlan(level=level))
        assert self.unbroken.code == 0, "the run itself does not end well"
        assert self.unbroken.found["problems"] == []
        assert self.unbroken.commits, "it commits nothing inside its epochs"
        again = self.life(self._new_store(), FaultPlan(level=level))
        assert again == self.unbroken, "two unbroken runs differ"
        return self

    def _new_store(self) -> str:
        self._made += 1
        return self._address(f"store-{os.getpid()}-{self._made % 2}")

    def life(self, store: str, plan: FaultPlan) -> Life:
        """One process's try, retention included."""
        answer = self.folder / f"answer-{os.getpid()}.json"
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            self._live(store, plan, answer)
        _, status = os.waitpid(pid, 0)
        life = Life(os.waitstatus_to_exitcode(status))
        if not answer.exists():
            return life
        body = json.loads(answer.read_text())
        return replace(
            life,
            found=body["found"],
            operations=tuple(body["operations"]),
            commits=body["commits"],
            reached=body["reached"],
        )

    def _live(self, store: str, plan: FaultPlan, answer: Path) -> None:
        code = BROKEN
        logging.getLogger("epochal").setLevel(logging.ERROR)  # it warns of each flipped bit
        try:
            MidEpochSaver.is_due = commit_at_once
            with injected(plan):
                run = BareRun(self.config, store=store)()
                remove_garbage(run.session.store, find_garbage(run.session.store))
            body = {
                "found": found(run), "operations": plan.operations, "commits": len(COMMITS),
                "reached": plan.hit,
            }  # fmt: skip
            answer.write_text(json.dumps(body))
            code = 0
        except EpochalError as error:
            code = STOPPED if error.exit_code in {2, 75} else BROKEN
            if code == BROKEN:
                traceback.print_exc()
        except BaseException:  # noqa: BLE001 - a child must end here, whatever it was
            traceback.print_exc()
        finally:
            os._exit(code)

    def points(self, kind: str, *, every: int = 1, only: frozenset[str] = frozenset()) -> list[int]:
        """The operations at which a fault of that kind means something, as it counts them."""
        matters = {
            "torn": {"put_new", "write", "copy"},
            "lying": {"sync"},
            "enospc": {"put_new", "scratch", "write", "copy", "link", "make_folder"},
            "stale_list": {"listing"},
        }.get(kind)
        names = self.unbroken.operations
        if kind == "flip":  # it counts reads alone
            names = tuple(name for name in names if name in READS)
        wanted = (only or set(names)) & (matters or set(names))
        return [at for at, name in enumerate(names, 1) if name in wanted][::every]

    def sweep(self, plan: FaultPlan, points: list[int]) -> Count:
        """A fault as in `plan` at each of these operations, then a life without any."""
        total = Count()
        for at in points:
            store = self._new_store()
            first = self.life(store, replace(plan, at=at, operations=[]))
            second = self.life(store, FaultPlan())
            right = second.found == self.unbroken.found and first.code != BROKEN
            total += Count(
                points=1,
                killed=first.code == KILLED,
                stopped=first.code == STOPPED,
                finished=first.code == 0,
                missed=not first.reached,
                mismatches=() if right else (at,),
            )
        return total

    def shared_sweep(self, plan: FaultPlan, points: list[int], *, processes: int) -> Count:
        """The same, by several processes at once."""
        children = {}
        for index in range(processes):
            place = self.folder / f"count-{index}.json"
            place.unlink(missing_ok=True)
            pid = os.fork()
            if pid == 0:
                code = BROKEN
                try:
                    count = self.sweep(plan, points[index::processes])
                    place.write_text(json.dumps(vars(count)))
                    code = 0
                except BaseException:  # noqa: BLE001 - a child must end here
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children[pid] = place
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        counts = [json.loads(place.read_text()) for place in children.values()]
        return sum(
            (Count(**{**one, "mismatches": tuple(one["mismatches"])}) for one in counts), Count()
        )


COMMITS: list[int] = []
"""Micro-steps at which this process has committed."""


def commit_at_once(self, progress) -> bool:
    """Commits at fixed micro-steps and waits: each life has the same operations in one order.

    In the place of `MidEpochSaver.is_due`, which is asked after each micro-step.
    """
    if commits_here(progress.micro_steps):
        self.now(progress)
        self._link._trainer._writer.end()
        COMMITS.append(progress.micro_steps)
    return False


def found(run: BareRun) -> dict:
    """All that a run has made, and that the store holds of stages: what must be equal."""
    store = run.session.store
    for key, record in run.view.records.items():
        if record.stage != "initialise":  # as a delivery does: a damaged one is written anew
            run.session.stage_store.put_side_file(key, TIMES, {"anchors": [[0, 0]]})
        run.session.stage_store.put_side_file(key, GOODPUT, {"seconds": {}})
    return {
        "problems": list(verify_store(store).problems),
        "digests": {"/".join(map(str, place)): one for place, one in run.digests.items()},
        "records": {key: one.values for key, one in sorted(run.view.records.items())},
        "objects": sorted(path for path in store.listing() if path.startswith("stages/")),
    }


def in_a_child(folder: Path, do: Callable[[], Any]) -> Any:
    """What `do` gives, plain JSON, from a process of its own, whose changes end with it."""
    answer = folder / "answer.json"
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            answer.write_text(json.dumps(do()))
            code = 0
        except BaseException:  # noqa: BLE001 - a child must end here
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(answer.read_text())


def signal_that_ends_a_fork(number):
    """The signal by which a forked process ends that gives itself one; None if by none."""
    pid = os.fork()
    if not pid:
        try:
            signal.raise_signal(number)
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
