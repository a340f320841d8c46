"""The proof of the first claim: end it anywhere, and the resumed run ends in the same bytes.

`make proof` runs all of it. Each point is a life that ends or fails at one operation, and a second
one that goes on; what the second leaves must be what an unbroken run leaves, to the last byte.
Prints a count for each fault, and fails at a mismatch.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from support.runs.forked_runs import Count, Lives
from support.runs.proof_policies import POLICIES, policy_lives
from support.runs.proof_project import proof_project
from support.stores.s3_server import BUCKET, s3_process

from epochal.data.testing.plan import FaultPlan
from epochal.flows.servers import down

WRITES = frozenset({"put_new"})
SWEEPS: dict[str, tuple[tuple[str, frozenset[str]], ...]] = {
    # What kills before a read leave on the disk is what kills before the next write leave; they
    # are here all the same: every operation means every one.
    "store": tuple(
        (kind, frozenset())
        for kind in (
            *("kill", "torn", "enospc", "eio", "timeout", "lost_answer", "stale_list", "flip"),
        )
    ),
    "disk": tuple(
        (kind, frozenset())
        for kind in ("kill", "torn", "power", "lying", "zero_length", "enospc", "eio")
    ),
    "s3": (
        *((kind, WRITES) for kind in ("kill", "kill_after", "lost_answer")),
        *((kind, frozenset()) for kind in ("timeout", "stale_list", "flip")),
    ),
}
WHERE = {
    "store": "local files, each operation of the store",
    "disk": "local files, each system call below it",
    "s3": "S3 (moto's server), each write, and each operation that only fails",
}
LEVEL = {"store": "store", "disk": "disk", "s3": "store"}
SEED = 4  # of the instants at which a process is killed
VICTIMS = ("command", "trainer", "both")
STEP_SECONDS = "0.05"


@contextmanager
def lives(where: str, folder: Path) -> Iterator[Lives]:
    """The run, its stores and its unbroken end, in one place."""
    config = proof_project(folder / "project").config
    with own_threads():
        yield from _lives(where, config, folder)


@contextmanager
def own_threads() -> Iterator[None]:
    """The threads that a run sets for its process are those of before at the end."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _lives(where: str, config: Path, folder: Path) -> Iterator[Lives]:
    if where != "s3":
        yield Lives.on_files(config, folder).prepare(LEVEL[where])
        return
    with s3_process():
        made = iter(range(1 << 30))

        def address(name: str) -> str:
            return f"s3://{BUCKET}/{os.getpid()}-{next(made)}/{name}"

        yield Lives(config, folder, address).prepare()


def told(name: str, count: Count, seconds: float) -> None:
    """One line for people."""
    print(
        f"  {name:<18} {count.equal:>4} of {count.points:<4} equal  ({count.killed} killed, "
        f"{count.stopped} stopped, {count.finished} went through"
        f"{f', {count.missed} NOT REACHED' if count.missed else ''}; {seconds:.0f} s)",
        flush=True,
    )
    if count.mismatches:
        print(f"    MISMATCHES at operations {count.mismatches}")


def prove(where: str, folder: Path, *, every: int, processes: int) -> Count:
    """All sweeps in one place."""
    total = Count()
    with lives(where, folder) as proof:
        objects = len(proof.unbroken.found["objects"])
        print(f"{WHERE[where]}: {len(proof.unbroken.operations)}; the run leaves {objects} objects")
        for kind, only in SWEEPS[where]:
            started = time.monotonic()
            points = proof.points(kind, every=every, only=only)
            plan = FaultPlan(kind, level=LEVEL[where])
            count = proof.shared_sweep(plan, points, processes=processes)
            told(kind, count, time.monotonic() - started)
            total += count
    return total


def prove_policies(folder: Path, *, every: int, processes: int) -> Count:
    """A kill before each operation of the store, in a small run of every policy."""
    total = Count()
    print("every sampling policy, killed before each operation of its store")
    for number, name in enumerate(POLICIES):
        started = time.monotonic()
        with own_threads():
            proof = policy_lives(name, folder / f"policy-{number}")
            points = proof.points("kill", every=every)
            count = proof.shared_sweep(FaultPlan("kill"), points, processes=processes)
        told(name, count, time.monotonic() - started)
        total += count
    return total


def random_kills(folder: Path, *, kills: int, workers: int) -> Count:
    """At least `kills` of them, over as many runs as it takes; each run must end in the same bytes.

    Killed is the command, its trainer, or both, by chance. Every run is one store, one home with
    its servers' files, and one MLflow run.
    """
    draw = random.Random(f"{SEED}/{workers}")
    started = time.monotonic()
    expected = _Run(folder / f"unbroken-{workers}", workers)
    assert expected.live() == 0, expected.errors()
    whole_s = time.monotonic() - started
    found = expected.found()
    total = Count()
    while total.killed < kills:
        run = _Run(folder / f"killed-{workers}-{total.points}", workers)
        killed = 0
        while total.killed + killed < kills and run.killed(
            draw.uniform(0.2, 1.0) * whole_s, draw.choice(VICTIMS)
        ):
            killed += 1
        assert run.live() == 0, run.errors()
        equal = run.found() == found
        total += Count(
            points=1, killed=killed, finished=1, mismatches=() if equal else (total.points,)
        )
        run.clear()
    expected.clear()
    return total


class _Run:
    """One run of the project, in a folder of its own."""

    def __init__(self, folder: Path, workers: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.project = proof_project(
            folder / "project",
            loader={"batch_size": 4, "workers": workers},
            checkpoint={"every_seconds": 0.2},
            tracking={"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "proof"},
            launch={"kind": "local"},
        )
        self.out = folder / "out.txt"

    def live(self) -> int:
        """One process, until it ends; its exit code."""
        with self._command() as process:
            return process.wait()

    def killed(self, seconds: float, victim: str) -> bool:
        """One process; whether it was killed after `seconds`, and had not come to its end."""
        from support.runs.command import trainer_of

        with self._command() as process:
            with suppress(subprocess.TimeoutExpired):
                assert process.wait(timeout=seconds) == 0, self.errors()
                return False
            trainer = trainer_of(process.pid) if victim != "command" else None
            if trainer is not None:
                with suppress(ProcessLookupError):
                    os.kill(trainer, signal.SIGKILL)
            if trainer is None or victim == "both":
                process.send_signal(signal.SIGKILL)
            code = process.wait(timeout=60)
        # One without a trainer ends by itself: before it has begun, at work, or done all the same.
        assert code in (-signal.SIGKILL, 2, 3, 0), self.errors()
        return code != 0

    @contextmanager
    def _command(self) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "epochal.flows.cli", "train", str(self.project.config)]
        with self.out.open("w") as out, (self.folder / "errors.txt").open("w") as errors:
            yield subprocess.Popen(
                [*command, "--json"], cwd=self.project.folder, stdout=out, stderr=errors, text=True,
                env={**os.environ, "STEP_SECONDS": STEP_SECONDS},
            )  # fmt: skip

    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()

    def found(self) -> dict:
        """What must be equal: every stage's record, the result, every point in MLflow."""
        from support.runs.command import points

        result = json.loads(self.out.read_text().splitlines()[-1])
        records = {
            path.parent.name: json.loads(path.read_text())
            for path in self.project.store.glob("stages/*/record.json")
        }
        return {
            "weights": result["weights_sha256"],
            "records": records,
            "points": points(result["mlflow_run_id"], result["mlflow_tracking_uri"]),
        }

    def clear(self) -> None:
        # The process that draws a run's pictures outlives its command, and may still be writing.
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th operation")
    places = [*SWEEPS, "policies", "kills"]
    parser.add_argument("--where", nargs="+", default=places, choices=places)
    parser.add_argument("--kills", type=int, default=50, help="of the real command, at random")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    total = Count()
    for where in options.where:
        with tempfile.TemporaryDirectory(
            prefix="epochal-proof-", ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            os.environ["HOME"] = name
            if where in SWEEPS:
                total += prove(where, folder, every=options.every, processes=options.processes)
                continue
            if where == "policies":
                total += prove_policies(folder, every=options.every, processes=options.processes)
                continue
            print("the real command, SIGKILL at random instants")
            try:
                for workers in (0, 2):
                    started = time.monotonic()
                    count = random_kills(folder, kills=-(-options.kills // 2), workers=workers)
                    told(f"{workers} workers", count, time.monotonic() - started)
                    total += count
            finally:
                down()  # the Prefect server that the commands have started
    mismatches = len(total.mismatches)
    print(f"{total.points} points, {mismatches} {'mismatches' if not mismatches else 'MISMATCHES'}")
    sys.exit(bool(mismatches))


if __name__ == "__main__":
    main()
