"""Histories of the real command on real parts, drawn from seeds: all must end as an unbroken run.

`make proof-real HOURS=1` runs as many as fit. Real are the command, its trainer and the loader's
processes, Prefect's server, MLflow's database, the thread that commits, and the store, on the S3
server that the package ships, whose requests fail by a plan. Prints a count for each kind of fault;
a history that ends wrongly is printed with its seed, and its folder is kept.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from support.histories.history import Ending, History
from support.real.drawn import allowed, drawn
from support.real.found import differences
from support.real.machine import OWN_MOUNTS
from support.real.nemesis import MACHINE, OTHER
from support.real.project import WIDTHS
from support.real.runs import UNDELIVERED, RealRuns

PORTS = 27_300
"""From here on: Prefect's server, then the S3 server."""


def in_own_mounts() -> None:
    """Begins again where mounts are this process's alone, if that is allowed."""
    if OWN_MOUNTS in os.environ:
        return
    prefix = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[OWN_MOUNTS] = "own"
        os.execvp(prefix[0], [*prefix, sys.executable, *sys.argv])


class Counts:
    """What was drawn and reached, by kind, and how the histories ended."""

    def __init__(self) -> None:
        self.drawn: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self.right = self.wrong = self.lives = self.beside = 0

    def add(self, history: History, ending: Ending) -> None:
        kinds = [f"{fault.where}: {fault.kind}" for _, fault in history.faults]
        self.drawn.update(kinds)
        self.reached.update(kind for kind, was in zip(kinds, ending.reached, strict=True) if was)
        self.lives += ending.lives
        self.beside += sum(bool(life.beside) for life in history.lives)
        self.right += ending.right
        self.wrong += not ending.right

    def tell(self) -> None:
        for kind, count in sorted(self.drawn.items()):
            print(f"  {kind:<45} {self.reached[kind]:>4} of {count:<4} reached")
        print(
            f"{self.right + self.wrong} histories, {self.lives} lives, {self.beside} with a second "
            f"command beside, {sum(self.reached.values())} faults reached: {self.right} equal, "
            f"{self.wrong} {'WRONG' if self.wrong else 'wrong'}",
            flush=True,
        )


def told(history: History, ending: Ending, seconds: float, folder: Path) -> None:
    """One line for people, or all that is known of a wrong one."""
    end = "equal" if ending.right else "WRONG"
    reached = f"{sum(ending.reached)} of {len(ending.reached)} faults reached"
    print(
        f"seed {history.seed}: {end}, {ending.lives} lives, {reached}, {seconds:.0f} s", flush=True
    )
    for line in ending.notes:
        if UNDELIVERED in line:  # no fault of ours meets MLflow: what has?
            print(f"  {line}", flush=True)
    if not ending.right:
        print(f"  {history.dump()}")
        for line in (*ending.notes, *ending.differs, ending.broken or ""):
            print(f"  {line}")
        print(f"  {folder}/history-{history.seed}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, choices=sorted(WIDTHS), default=70, help="MB of state")
    parser.add_argument("--histories", type=int, default=0, help="at most; 0: as time allows")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1, help="the first; the others follow it")
    parser.add_argument("--port", type=int, default=PORTS, help="the first of two that are free")
    options = parser.parse_args()
    # What a shell starts in the background ignores Ctrl-C: either signal ends it, and all it began.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(75))
    in_own_mounts()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="epochal-proof-real-"))
    os.environ["HOME"] = str(folder / "home")
    from epochal.flows.environment import prepare_environment

    prepare_environment()
    from epochal.flows.servers import down
    from epochal.flows.servers.prefect import begin_local_server
    from epochal.tasks.tracking.connection import connect

    (folder / "home").mkdir()
    counts = Counts()
    missing = [kind for kind in (*MACHINE, OTHER) if not allowed(kind)]
    if missing:
        print(f"not allowed here, and left out: {', '.join(missing)}")
    try:
        server = begin_local_server(stops_when_idle=False, port=options.port).wait()
        connect(f"sqlite:///{folder}/empty.db")
        runs = RealRuns(folder, options.size, server.api_url, folder / "empty.db", options.port + 1)
        whole, expected = runs.unbroken("unbroken")
        _, again = runs.unbroken("unbroken-again")
        assert not differences(again, expected), differences(again, expected)
        print(f"an unbroken life: {whole.seconds:.0f} s, requests {whole.requests}", flush=True)
        seed = options.seed
        while time.monotonic() - began < options.hours * 3600:
            if options.histories and seed - options.seed == options.histories:
                break
            history, started = drawn(seed, size_mb=options.size), time.monotonic()
            ending = runs.history(history, whole, expected)
            counts.add(history, ending)
            told(history, ending, time.monotonic() - started, folder)
            seed += 1
    finally:
        down()  # the Prefect server
        if not counts.wrong:
            shutil.rmtree(folder, ignore_errors=True)
    counts.tell()
    sys.exit(bool(counts.wrong))


if __name__ == "__main__":
    main()
