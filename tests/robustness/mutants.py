"""Tests of the tests: small faults are planted in the source, and the quick tests must find each.

`make mutants` runs all of it. A mutant is one text of one file replaced by another in a copy of the
source; then the quick tests of the folder of that file run, the likeliest ones first, until one
fails. The same tests run once without any fault: where they fail then, nothing is said about their
mutants. Prints who found what, and fails for a mutant that survived, and for one whose text is no
longer exactly once in its file.
"""

import argparse
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.mutants import MUTANTS, PARTS, ROOT, Mutant

COPIED = (*PARTS, "tests", "docs", "examples", "README.md", "pyproject.toml", "constraints.txt")
LEAST_LIMIT_S = 60.0
"""A fault may make tests slower, and several times as slow as without it is a hang."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_IMPORTED = f"""
import importlib, pathlib, sys
for part in {PARTS!r}:
    place = pathlib.Path(importlib.import_module("epochal." + part).__file__).resolve()
    assert place == pathlib.Path(sys.argv[1], part, "__init__.py").resolve(), place
"""


@dataclass(frozen=True)
class Result:
    """What became of a run of tests. found: by which test, or None; text: the end of its output."""

    found: str | None
    seconds: float
    text: str = ""


class Tree:
    """A copy of the source, which is what its tests import."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copyfile(source, root / name)
        package = root / ".types" / "epochal"
        package.mkdir(parents=True)
        for part in PARTS:
            (package / part).symlink_to(root / part)
        (package / "__init__.py").symlink_to(root / "flows" / "front_door" / "__init__.py")
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(package.parent),
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",
        }
        subprocess.run(
            [sys.executable, "-c", _IMPORTED, str(root)], env=self.environment, cwd="/", check=True
        )

    @contextmanager
    def planted(self, mutant: Mutant) -> Iterator[None]:
        """Inside the block the fault is in the copy."""
        text = (self.root / mutant.file).read_text()
        self._write(mutant.file, text.replace(mutant.old, mutant.new))
        try:
            yield
        finally:
            self._write(mutant.file, text)

    def _write(self, file: str, text: str) -> None:
        path = self.root / file
        path.write_text(text)
        # Of a file as long as the one before, written in the same second, Python would go by this.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def test(self, selection: Sequence[str], *, limit_s: float | None = None) -> Result:
        """Runs the quick tests of `selection` until one fails; a hang is found as well."""
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider",
            *selection,
        ]  # fmt: skip
        started = time.monotonic()
        ended = self.ran(command, limit_s=limit_s)
        seconds = time.monotonic() - started
        if ended is None:
            return Result(f"hang: more than {limit_s:.0f} s", seconds)
        code, text = ended
        failed = _FAILED.search(text)
        if code == 0:
            return Result(None, seconds, text)
        return Result(failed[1] if failed else f"pytest: {code}", seconds, text)

    def ran(
        self,
        command: Sequence[str],
        *,
        limit_s: float | None,
        errors: int = subprocess.STDOUT,
        **environment: str,
    ) -> tuple[int, str] | None:
        """Exit code and output of a command there, and nothing of it left; None if it hangs.

        errors: where its standard error goes.
        """
        process = subprocess.Popen(
            command,
            cwd=self.root,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end_all_of(process)
        return process.returncode, text


def end_all_of(process: subprocess.Popen[str]) -> None:
    """Ends the process and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Trees:
    """A copy for each worker, and its next user."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        self._free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for number in range(workers):
            self._free.put(Tree(folder / str(number)))

    @contextmanager
    def free(self) -> Iterator[Tree]:
        """A copy that nobody else has."""
        tree = self._free.get()
        try:
            yield tree
        finally:
            self._free.put(tree)


class Baselines:
    """The tests without a fault, each selection once, when the first mutant asks for it."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._locks: defaultdict[tuple[str, ...], threading.Lock] = defaultdict(threading.Lock)
        self._results: dict[tuple[str, ...], Result] = {}

    def __call__(self, selection: tuple[str, ...]) -> Result:
        """What became of these tests."""
        with self._locks[selection]:
            if selection not in self._results:
                with self._trees.free() as tree:
                    result = tree.test(selection)
                if result.found is not None:
                    print(f"  {' '.join(selection)} FAIL without a fault: {result.found}")
                    print(result.text[-3000:], flush=True)
                self._results[selection] = result
            return self._results[selection]


FOUND, SURVIVED, STALE, UNTOLD = "found", "SURVIVED", "STALE", "NOT TRIED"


def tried(trees: Trees, baselines: Baselines, mutant: Mutant) -> str:
    """Whether the tests find the mutant; prints by which and how fast."""
    if problem := mutant.problem(ROOT):
        return told(mutant, STALE, problem)
    seconds = 0.0
    for selection in mutant.selections:
        before = baselines(selection)
        if before.found is not None:
            return told(mutant, UNTOLD, f"{before.found} fails without it")
        with trees.free() as tree, tree.planted(mutant):
            result = tree.test(selection, limit_s=LEAST_LIMIT_S + 4 * before.seconds)
        seconds += result.seconds
        if result.found is not None:
            return told(mutant, FOUND, f"{result.found.removeprefix('tests/')}  ({seconds:.0f} s)")
    return told(mutant, SURVIVED, f"({seconds:.0f} s)")


def told(mutant: Mutant, state: str, text: str) -> str:
    """Prints what became of a mutant; gives the state."""
    print(f"  {mutant.name:<40} {state:<9} {text}", flush=True)
    return state


def run(mutants: Sequence[Mutant], *, workers: int) -> bool:
    """Whether each of the mutants is found."""
    started = time.monotonic()
    print(f"{len(mutants)} mutants", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="epochal-mutants-") as folder,
        ThreadPoolExecutor(workers) as pool,
    ):
        trees = Trees(Path(folder), workers=workers)
        baselines = Baselines(trees)
        states = list(pool.map(lambda mutant: tried(trees, baselines, mutant), mutants))
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in (FOUND, SURVIVED, STALE, UNTOLD)
    )
    print(f"{counts}; {time.monotonic() - started:.0f} s")
    for mutant, state in zip(mutants, states, strict=True):
        if state != FOUND:
            print(f"{state}: {mutant.name}")
    return set(states) == {FOUND}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="mutants, or their files")
    parser.add_argument("--list", action="store_true", help="name them and stop")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    asked = options.only
    mutants = [
        mutant
        for mutant in MUTANTS
        if asked is None or any(one in (mutant.name, mutant.file) for one in asked)
    ]
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name:<36} {mutant.file}")
        return
    if not mutants:
        parser.error(f"no mutant is called {', '.join(asked)}; --list names them")
    sys.exit(not run(mutants, workers=options.workers))


if __name__ == "__main__":
    main()
