"""The whole process against a script by hand: 10 epochs of digits, interleaved, wall seconds.

A Prefect server is already up, MLflow's SQLite database is already made; every round gives both
sides a folder of their own. Prints each round, and the medians of both sides and of their ratio;
and what our command leaves to a process that outlives it, which neither side is measured beside.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).parent
CONFIG = HERE.parent / "examples/digits/digits.yaml"


DRAWS = "epochal.tasks.running.pictures_process"
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Took:
    """Seconds of a whole process: by the wall's clock, and of its processors."""

    wall: float
    cpu: float


def adopt_orphans() -> None:
    """From now on a process whose parent has ended is a child of this one (Linux only)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def left_behind() -> Took:
    """Waits for the processes that draw pictures; how long, and what their whole life took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if DRAWS in child.cmdline():
                os.waitpid(child.pid, 0)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def timed(command: list[str], environment: dict[str, str]) -> Took:
    """Runs a whole process; exits if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def summary(name: str, pairs: list[tuple[float, float]]) -> str:
    """Medians of both sides and of the ratio, pair by pair."""
    ratios = [one / other for one, other in pairs]
    return (
        f"{name}: ours {statistics.median(one for one, _ in pairs):.2f} s, "
        f"raw {statistics.median(other for _, other in pairs):.2f} s, "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="epochal-bench-") as folder:
        place = Path(folder)
        tracking = f"sqlite:///{place}/mlflow.db"
        environment = {
            **os.environ,
            "HOME": str(place),
            "PREFECT_HOME": str(place / "prefect"),
            "MLFLOW_TRACKING_URI": tracking,
        }
        environment.pop("PREFECT_API_URL", None)

        def ours(number: int) -> list[str]:
            return [
                sys.executable, "-m", "epochal.flows.cli", "train", str(CONFIG), "--json",
                "--set", f"store={place}/store-{number}", "--set", f"epochs={options.epochs}",
                "--set", "sampling.policy=none", "--set", f"name=digits-{number}",
            ]  # fmt: skip

        def raw(number: int) -> list[str]:
            return [
                sys.executable, str(HERE / "raw_digits.py"), "--epochs", str(options.epochs),
                "--folder", f"{place}/raw-{number}", "--tracking", tracking,
            ]  # fmt: skip

        try:
            print(f"{platform.machine()}, {os.cpu_count()} cores; warming up (starts the server)")
            timed(ours(0), environment)
            left_behind()
            timed(raw(0), environment)
            rows, drawn = [], []
            for number in range(1, options.rounds + 1):
                # The order alternates, so that neither side always runs on a warmer cache.
                sides = [("ours", ours), ("raw", raw)][:: 1 if number % 2 else -1]
                took = {}
                for name, make in sides:
                    took[name] = timed(make(number), environment)
                    if name == "ours":
                        drawn.append(left_behind())
                ours_took, raw_took = took["ours"], took["raw"]
                rows.append((ours_took, raw_took))
                print(
                    f"round {number}: ours {ours_took.wall:.2f} s, raw {raw_took.wall:.2f} s, "
                    f"ratio {ours_took.wall / raw_took.wall:.3f}",
                    flush=True,
                )
            print(summary("wall", [(one.wall, other.wall) for one, other in rows]))
            print(summary("cpu ", [(one.cpu, other.cpu) for one, other in rows]))
            walls, cpus = ([getattr(one, name) for one in drawn] for name in ("wall", "cpu"))
            print(
                f"pictures, after ours: {statistics.median(walls):.2f} s, of processors "
                f"{statistics.median(cpus):.2f} s"
            )
        finally:
            subprocess.run(
                [sys.executable, "-m", "epochal.flows.cli", "down"], env=environment, check=False
            )


if __name__ == "__main__":
    main()
