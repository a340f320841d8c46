"""Histories from seeds: lives with several faults, and a run that must end in the same bytes.

`make history SEED=…` replays one, `make history HISTORY='{…}'` one that was printed; twice the same
prints the same. `--seeds A:B` runs many, counts what was reached, and shrinks the first that fail.
"""

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from itertools import groupby
from multiprocessing import get_context

from support.histories.draw import FAULTS, SEEDS_OF_A_CONFIG, drawn
from support.histories.history import Ending, History
from support.histories.shrink import shrunk

EXECUTORS = {
    "forked": "support.histories.forked",
    "simulated": "support.simulator.run",
}
"""Name → the module whose `ended` runs a history."""
DEFAULT = "forked"
SHRUNK = 3
"""So many of those that fail are shrunk: each takes up to 200 runs."""

Executor = Callable[[History], Ending]


def executor(name: str) -> Executor:
    """What runs histories by that name."""
    return import_module(EXECUTORS[name]).ended


def history_of(name: str, seed: int) -> History:
    """The one of that seed, with faults of the kinds that what runs it has."""
    return drawn(seed, faults=getattr(import_module(EXECUTORS[name]), "FAULTS", FAULTS))


def told(history: History, ending: Ending) -> str:
    """One history and its end, for people: the same at each replay."""
    lines = [history.dump()]
    lines += ending.notes
    for (number, fault), reached in zip(history.faults, ending.reached, strict=False):
        place = f"{fault.where} {fault.kind} at {fault.at:g}, {fault.count} of them"
        lines.append(f"life {number}: {place}: {'reached' if reached else 'not reached'}")
    lines += [f"differs: {one}" for one in ending.differs]
    if ending.broken is not None:
        lines.append(ending.broken.rstrip())
    if not ending.whole:
        lines.append("it did not come to its end")
    lines.append(f"{'right' if ending.right else 'WRONG'} after {ending.lives} lives")
    lines.append(f"trace {ending.trace}")
    return "\n".join(lines)


def replay(name: str, history: History) -> str:
    """The command that runs it again."""
    by = "" if name == DEFAULT else f" BY={name}"
    return f"make history HISTORY='{history.dump()}'{by}"


def run_group(name: str, seeds: list[int]) -> list[tuple[int, Ending]]:
    """The endings of seeds that share a config, in one process."""
    run = executor(name)
    return [(seed, run(history_of(name, seed))) for seed in seeds]


def endings(name: str, seeds: range, *, processes: int) -> Iterator[tuple[int, Ending]]:
    """The ending of each seed, as they come; seeds of one config are run by one process."""
    groups = [list(one) for _, one in groupby(seeds, lambda seed: seed // SEEDS_OF_A_CONFIG)]
    if processes == 1:
        for seeds_of_one in groups:
            yield from run_group(name, seeds_of_one)
        return
    # Spawned: each process begins without threads, and forks its lives itself.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run_group, name, group) for group in groups]
        for one in waiting:
            yield from one.result()


def run_many(name: str, seeds: range, *, processes: int) -> bool:
    """Whether all end right; prints counts, and the first that fail, shrunk."""
    started = time.monotonic()
    reached: Counter[str] = Counter()
    planned: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    wrong: list[int] = []
    count = lives = 0
    for seed, ending in endings(name, seeds, processes=processes):
        count += 1
        history = history_of(name, seed)
        lives += ending.lives
        beside.update(what for life in history.lives for what, _ in life.beside)
        beside.update("several processes" for life in history.lives if life.processes > 1)
        for (_, fault), hit in zip(history.faults, ending.reached, strict=False):
            planned[f"{fault.where} {fault.kind}"] += 1
            reached[f"{fault.where} {fault.kind}"] += hit
        if not ending.right:
            wrong.append(seed)
            print(told(history, ending), flush=True)
    seconds = time.monotonic() - started
    for kind in sorted(planned):
        print(f"  {kind:<20} {reached[kind]:>6} reached, {planned[kind] - reached[kind]:>6} not")
    for what in sorted(beside):
        print(f"  {what:<20} {beside[what]:>6}")
    print(
        f"{count} histories of {lives} lives, {sum(reached.values())} faults reached of "
        f"{sum(planned.values())}; {seconds:.0f} s, {count / seconds * 3600:.0f} an hour; "
        f"{len(wrong)} {'WRONG: ' + ', '.join(map(str, wrong)) if wrong else 'wrong'}"
    )
    for seed in wrong[:SHRUNK]:
        smallest, tries = shrunk(history_of(name, seed), lambda one: not executor(name)(one).right)
        print(f"seed {seed}, shrunk by {tries} runs; {replay(name, smallest)}")
    return not wrong


def seeds_in(text: str) -> range:
    """The seeds A to B - 1 of `A:B`. Raises ArgumentTypeError for another text, and for none."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected A:B with A below B, as 0:400")
    return range(int(found[1]), int(found[2]))


def history_in(text: str) -> History:
    """A history that was printed. Raises ArgumentTypeError for another text."""
    try:
        return History.load(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f"no history, as `make history SEED=7` prints one ({type(error).__name__}: {error})"
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seed", type=int, help="replays the history of that seed")
    what.add_argument("--history", metavar="JSON", type=history_in, help="replays that history")
    what.add_argument(
        "--seeds", metavar="A:B", type=seeds_in, help="runs those of the seeds A to B - 1"
    )
    parser.add_argument("--by", choices=EXECUTORS, default=DEFAULT, help="what runs them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seeds is not None:
        sys.exit(not run_many(options.by, options.seeds, processes=options.processes))
    history = options.history or history_of(options.by, options.seed)
    ending = executor(options.by)(history)
    print(told(history, ending))
    sys.exit(not ending.right)


if __name__ == "__main__":
    main()
