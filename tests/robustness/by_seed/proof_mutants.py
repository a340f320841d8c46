"""The proof must turn red: mistakes are planted in the source, and histories must find each.

`make proof-mutants` runs all of it. A mutant is one text of one file replaced by another in a copy
of the source; there histories of seeds run, those first that the mutant's hint prefers, until one
does not end in the bytes that the source as it is gives. Prints the seed that found it and the
time; fails for a mutant that survives.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any, Protocol

from robustness.mutants import Trees
from support.histories import turnstile
from support.histories.draw import FAULTS, SEEDS_OF_A_CONFIG, drawn, ends
from support.histories.forked import Forked
from support.histories.history import Ending, Fault, History, Life
from support.simulator import run as simulated
from support.simulator.faults import KINDS as SIMULATED

CONFIGS = 20
"""So many configs: their unbroken ends are computed once, by the source as it is."""
TRIES = 100
"""Histories for one mutant."""
MANY = 8
"""Faults of a life that goes on all the same."""
LIMIT_S = 180.0
HANG_S = 20.0
"""Of one life in which nothing happens any more: it has been found."""
LIVES = "12"
"""Of each model so many states that a crash may leave are gone on from; all are looked at."""
FOUND, SURVIVED, STALE = "found", "SURVIVED", "STALE"

Hint = Mapping[str, Any]


class Planted(Protocol):
    """What a mutant is, here: `ProofMutant` of the table."""

    name: str
    file: str
    old: str
    new: str
    hint: Hint

    def problem(self, root: Path) -> str | None:
        """Why it cannot be planted, or None."""


def preferred(hint: Hint) -> list[History]:
    """The histories to try, each of another config than the one before.

    unbroken, and processes alone: nothing goes wrong in them. where, kind: of a fault that is among
    theirs; every other one is made so that it meets a recovery. processes: at least so many share
    an update. beside: what is at work at the same time. by: `simulated`, which has an MLflow.
    """
    faults = FAULTS if "by" not in hint else SIMULATED
    seeds = sorted(
        range(CONFIGS * SEEDS_OF_A_CONFIG),
        key=lambda seed: (seed % SEEDS_OF_A_CONFIG, seed // SEEDS_OF_A_CONFIG),
    )
    histories = [drawn(seed, faults=faults) for seed in seeds]
    configs = histories[:CONFIGS]
    processes = hint.get("processes", 1)
    if hint.get("unbroken") or set(hint) == {"processes"}:
        shared = [one for one in configs if processes <= one.config["gradients"]["shards"]]
        return [replace(one, lives=(Life(processes),)) for one in shared]
    drawn_so = [one for one in histories if fits(one, hint)]
    if "kind" not in hint:
        return drawn_so[:TRIES]
    shared = [one for one in histories if processes <= one.config["gradients"]["shards"]]
    made = [in_recovery(one, hint) for one in shared]
    pairs = zip_longest(drawn_so, made)
    return [one for pair in pairs for one in pair if one is not None][:TRIES]


def in_recovery(history: History, hint: Hint) -> History:
    """Its config: a life is killed inside an epoch, and the fault meets the one that goes on."""
    draw = Random(f"recovery/{history.seed}")
    processes = hint.get("processes", 1)
    killed = Fault("process", "kill", round(draw.uniform(0.1, 0.9), 3), rank=processes - 1)
    one = Fault(hint["where"], hint["kind"], 0.0)
    if ends(one):
        faults = (replace(one, at=round(draw.random() * 0.3, 4)),)
    else:  # an object is read again where it is wrong: so one life may meet many
        most = 0.9 if one.where == "tracker" else 0.3  # a tracker that has failed is left alone
        places = sorted(round(draw.random() * most, 4) for _ in range(MANY))
        faults = tuple(replace(one, at=at) for at in places)
    lives = (Life(1, (killed,)), Life(1, faults))
    if processes > 1:  # a rank that is killed is started again within its life
        lives = (Life(processes, (killed, *faults)),)
    return replace(history, lives=lives)


def fits(history: History, hint: Hint) -> bool:
    """Whether the history has what the hint says."""
    faults = [fault for _, fault in history.faults]
    wanted = {name: hint[name] for name in ("where", "kind") if name in hint}
    return (
        any(all(getattr(one, name) == value for name, value in wanted.items()) for one in faults)
        and any(life.processes >= hint.get("processes", 1) for life in history.lives)
        and (
            "beside" not in hint
            or any(hint["beside"] == what for life in history.lives for what, _ in life.beside)
        )
    )


def sought(hint: Hint, expected: Path, folder: Path) -> str | None:
    """Which history of them does not end right, and in what; None if all do."""
    ended = by_processes(expected, folder) if "by" not in hint else simulated.ended
    for number, history in enumerate(preferred(hint), 1):
        try:
            ending = ended(history)
        except Exception as error:  # noqa: BLE001 - the mistake makes even the warm-up fail
            return f"seed {history.seed} ({number} tried): {type(error).__name__}: {error}"
        if not ending.right:
            told = [*ending.differs, *(ending.broken or "").splitlines()[-1:], "it does not end"]
            return f"seed {history.seed} ({number} tried): {told[0][:120]}"
    return None


def by_processes(expected: Path, folder: Path) -> Callable[[History], Ending]:
    """Runs histories by forked processes; a life in which nothing happens has been found soon."""
    turnstile.LIMIT_S = HANG_S
    (folder / "home").mkdir()
    return Forked(folder, expected).ended


def command_for(mutant: Planted, expected: Path, folder: Path) -> list[str]:
    """What looks for it, in a copy of the source: exit code 0 if it is not found."""
    proof = mutant.hint.get("proof")
    if proof is not None:
        script = f"tests/robustness/crashes/{proof}.py"
        return [sys.executable, script, "--first", LIVES]
    script = "tests/robustness/by_seed/proof_mutants.py"
    given = [json.dumps(dict(mutant.hint)), str(expected), str(folder)]
    return [sys.executable, script, "--seek", *given]


def tried(trees: Trees, mutant: Planted, expected: Path) -> str:
    """Whether it is found; prints by what and how fast."""
    started = time.monotonic()
    with trees.free() as tree:
        if problem := mutant.problem(tree.root):
            return told(mutant, STALE, problem)
        with (
            tree.planted(mutant),  # type: ignore[arg-type]
            tempfile.TemporaryDirectory(prefix="epochal-mutant-") as folder,
        ):
            path = f"{tree.root}/.types:{tree.root}/tests"
            command = command_for(mutant, expected, Path(folder))
            quiet = subprocess.DEVNULL
            ended = tree.ran(command, limit_s=LIMIT_S, errors=quiet, PYTHONPATH=path)
    seconds = f"({time.monotonic() - started:.0f} s)"
    # Where the time was over nobody has said that anything is wrong.
    code, text = ended or (0, "")
    lines = text.strip().splitlines()
    if code == 0:
        return told(mutant, SURVIVED, seconds)
    return told(mutant, FOUND, f"{lines[-1] if lines else f'exit code {code}'}  {seconds}")


def told(mutant: Planted, state: str, text: str) -> str:
    """Prints what became of a mutant; gives the state."""
    print(f"  {mutant.name:<44} {state:<9} {text}", flush=True)
    return state


def prepare(expected: Path, folder: Path) -> None:
    """The unbroken ends of all configs, by the source as it is."""
    (folder / "home").mkdir()
    forked = Forked(folder, expected)
    for number in range(CONFIGS):
        forked.unbroken(drawn(number * SEEDS_OF_A_CONFIG).config)


def run(mutants: Sequence[Planted], *, workers: int) -> bool:
    """Whether each of the mutants is found."""
    started = time.monotonic()
    print(f"{len(mutants)} mutants", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="epochal-proof-mutants-") as name,
        ThreadPoolExecutor(workers) as pool,
    ):
        folder = Path(name)
        expected = folder / "expected"
        expected.mkdir()
        (folder / "own").mkdir()
        # By a process of its own: this one has threads, and forks nothing.
        script = [sys.executable, __file__, "--prepare", str(expected), str(folder / "own")]
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        subprocess.run(script, check=True, env=environment)
        shutil.rmtree(folder / "own")
        trees = Trees(folder, workers=workers)
        states = list(pool.map(lambda mutant: tried(trees, mutant, expected), mutants))
    counts = ", ".join(f"{states.count(state)} {state}" for state in (FOUND, SURVIVED, STALE))
    print(f"{counts}; {time.monotonic() - started:.0f} s")
    return set(states) == {FOUND}


def chosen(mutants: Sequence[Planted], asked: Sequence[str] | None) -> Iterator[Planted]:
    """Those with these names, or of these files; all where nothing is asked for."""
    for mutant in mutants:
        if asked is None or mutant.name in asked or mutant.file in asked:
            yield mutant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="mutants, or their files")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seek", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare is not None:
        prepare(*map(Path, options.prepare))
    elif options.seek is not None:
        hint, expected, folder = options.seek
        what = sought(json.loads(hint), Path(expected), Path(folder))
        if what is not None:
            print(what)
            sys.exit(1)
    else:
        from support.mutants.of_proof import PROOF_MUTANTS

        mutants = list(chosen(PROOF_MUTANTS, options.only))
        if not mutants:
            parser.error(f"no mutant is called {', '.join(options.only)}")
        sys.exit(not run(mutants, workers=options.workers))


if __name__ == "__main__":
    main()
