"""The proof of the first claim: kill it anywhere, and the resumed run ends in the same bytes.

`make proof` runs all of it: for every I/O operation of a whole run, a life that ends there and a
second one that goes on. Prints a count for each fault and fails at the first mismatch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from bare_run import BareRun
from project import Project

from epochal.data.errors import EpochalError
from epochal.data.testing import FaultPlan, injected

ENDS_PROCESS = {"kill", "kill_after", "torn"}
KINDS = ("kill", "kill_after", "torn", "enospc", "eio", "timeout", "lost_answer", "stale_list")
STOPPED, BROKEN = 75, 99


@dataclass(frozen=True)
class Count:
    """How a sweep ended. stopped: first lives that ended with a named error."""

    kind: str
    points: int
    killed: int
    stopped: int
    finished: int
    mismatches: list[int]


class Proof:
    """One run's config, its unbroken result, and sweeps of faults over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # 13 samples to a micro-batch, three to an update: a short tail, and a shorter last update.
        self.project = Project(
            folder / "project",
            epochs=2,
            threads=1,
            loader={"batch_size": 13},
            gradients={"accumulate": 3, "clip_norm": 1.0},
            checkpoint={"every_updates": 2},
        )
        # Lives are forked from a process that has imported and run everything once: 0.3 s each
        # instead of 2. One thread, for a pool of threads does not survive a fork.
        BareRun(self.project.config, store=self.store("warm"))()
        self.unbroken, _ = self.life(self.store("unbroken"), FaultPlan())
        plan = FaultPlan()
        self.life(self.store("counted"), plan)
        self.operations = plan.operations
        assert self.unbroken, "the run itself does not end well"

    def store(self, name: str) -> str:
        """The address of an empty store."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return f"file://{self.folder / name}"

    def life(self, store: str, plan: FaultPlan) -> tuple[dict[str, str] | None, int]:
        """One process's try: the digests of all that it made, or None; and its exit code."""
        answer = self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            self._live(store, plan, answer)
        _, status = os.waitpid(pid, 0)
        found = json.loads(answer.read_text()) if answer.exists() else None
        if found is not None:
            plan.operations = found["operations"]
        return None if found is None else found["digests"], os.waitstatus_to_exitcode(status)

    def _live(self, store: str, plan: FaultPlan, answer: Path) -> None:
        code = BROKEN
        try:
            with injected(plan):
                run = BareRun(self.project.config, store=store)()
            digests = {"/".join(map(str, place)): one for place, one in run.digests.items()}
            body = {"digests": digests, "operations": plan.operations}
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

    def sweep(self, kind: str, *, every: int = 1) -> Count:
        """A fault of that kind at every n-th operation, each followed by a life without."""
        killed = stopped = finished = 0
        mismatches: list[int] = []
        points = [at for at in range(1, len(self.operations) + 1, every) if self._matters(kind, at)]
        for at in points:
            store = self.store("swept")
            _, code = self.life(store, FaultPlan(kind, at=at))
            killed += code == 137
            stopped += code == STOPPED
            finished += code == 0
            again, second = self.life(store, FaultPlan())
            if second != 0 or again != self.unbroken or code == BROKEN:
                mismatches.append(at)
        return Count(kind, len(points), killed, stopped, finished, mismatches)

    def _matters(self, kind: str, at: int) -> bool:
        name = self.operations[at - 1]
        only = {"torn": {"put_new"}, "enospc": {"put_new", "scratch"}, "stale_list": {"listing"}}
        return name in only.get(kind, {name})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th operation")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epochal-proof-") as folder:
        proof = Proof(Path(folder))
        print(f"one run: {len(proof.operations)} I/O operations, {len(proof.unbroken)} artifacts")
        broken = 0
        for kind in options.kinds:
            started = time.monotonic()
            count = proof.sweep(kind, every=options.every)
            broken += len(count.mismatches)
            print(
                f"{kind:<12} {count.points - len(count.mismatches):>4} of {count.points:<4} equal  "
                f"({count.killed} killed, {count.stopped} stopped, {count.finished} went through; "
                f"{time.monotonic() - started:.0f} s)",
                flush=True,
            )
            if count.mismatches:
                print(f"  mismatches at operations {count.mismatches}")
        print("0 mismatches" if not broken else f"{broken} MISMATCHES")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
