"""The proof for crashes of the machine: a run from every state that one may leave of the disk.

Records what a run does to its store, makes the states that a file system may leave of it, and lets
the run go on from each: to the same bytes, with every promise kept and nothing damaged. A part of
`make proof`; the models are `epochal.data.testing.crash`'s.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from support.runs.bare_run import BareRun
from support.runs.forked_runs import BROKEN, Lives, commit_at_once, found
from support.runs.proof_project import proof_project

from epochal.data.stage_store.stages import PRUNED, RECORD
from epochal.data.store.open import open_store
from epochal.data.testing.crash import (
    MODELS,
    CrashState,
    broken_promises,
    crash_states,
    drawn_states,
)
from epochal.data.testing.plan import FaultPlan
from epochal.data.testing.recording import Recording, recorded
from epochal.tasks.computing.saver import MidEpochSaver
from epochal.tasks.upkeep import find_garbage, remove_garbage, verify_store

PROBE = re.compile(r"preflight-\d+-[0-9a-f]{16}")


@dataclass
class Recorded:
    """What a run has done to its disk. ends: stage → the number of changes when it was done."""

    recording: Recording
    ends: dict[tuple[str, int | None], int]

    def of_stage(self, kind: str, epoch: int | None) -> range:
        """The points of one stage, from the end of the one before it to its own."""
        places = list(self.ends)
        number = places.index((kind, epoch))
        first = self.ends[places[number - 1]] if number else self.recording.first
        return range(first, self.ends[kind, epoch] + 1)


def recorded_run(config: Path, disk: Path) -> Recorded:
    """A whole run with what is kept beside its stages, and `gc`, on an empty disk."""
    MidEpochSaver.is_due = commit_at_once
    disk.mkdir(exist_ok=True)
    with recorded(disk) as recording:
        run = BareRun(config, store=f"file://{disk}/store")
        ends: dict[tuple[str, int | None], int] = {}
        for stage in run.run.stages():
            run.run.run_stage(stage)
            ends[stage.kind, stage.epoch] = len(recording.changes)
        found(run)
        ends["side files", None] = len(recording.changes)
        remove_garbage(run.session.store, find_garbage(run.session.store))
        ends["gc", None] = len(recording.changes)
    return Recorded(recording, ends)


@dataclass
class Checked:
    """states: that were checked; lives: that went on from one. wrong: what is not as it must be."""

    states: int = 0
    lives: int = 0
    wrong: tuple[str, ...] = ()

    def __add__(self, other: "Checked") -> "Checked":
        return Checked(
            self.states + other.states, self.lives + other.lives, self.wrong + other.wrong
        )


def checked(lives: Lives, states: Iterable[CrashState], *, every: int = 1) -> Checked:
    """Each state by itself; every n-th is written, verified and gone on from."""
    result = Checked()
    disk = lives.folder / f"crashed-{os.getpid()}"
    for number, state in enumerate(states):
        wrong = [*broken_promises(state), *_unfounded(state)]
        if goes_on := number % every == 0:
            shutil.rmtree(disk, ignore_errors=True)
            disk.mkdir()
            state.write(disk)
            wrong += [*_problems(disk), *_after(lives, disk)]
        place = f"after {state.point} changes"
        result += Checked(1, int(goes_on), tuple(f"{place}: {one}" for one in wrong))
    shutil.rmtree(disk, ignore_errors=True)
    return result


def _unfounded(state: CrashState) -> list[str]:
    """Records that name what is not there, and is not said to have been removed."""
    wrong = []
    for path, data in state.files.items():
        folder, _, name = path.rpartition("/")
        if name != RECORD:
            continue
        try:
            note = json.loads(state.files.get(f"{folder}/{PRUNED}", b"{}"))
            artifacts = json.loads(data)["body"]["artifacts"]
        except ValueError:
            continue  # not all of its bytes are there, which was said
        gone = note.get("body", {}).get("artifacts", [])
        for artifact, one in artifacts.items():
            size = len(state.files.get(f"{folder}/{one['file']}", b""))
            if artifact not in gone and size != one["size"]:
                wrong.append(f"{path}: its {artifact} has {size} bytes")
    return wrong


def _problems(disk: Path) -> list[str]:
    """What `epochal verify` says of the state."""
    return list(verify_store(open_store(f"file://{disk}/store")).problems)


def _after(lives: Lives, disk: Path) -> list[str]:
    """What is wrong after a life that began with what is on the disk."""
    life = lives.life(f"file://{disk}/store", FaultPlan())
    wrong = [] if life.found == lives.unbroken.found else ["the next life ends in other bytes"]
    left = open_store(f"file://{disk}/store").listing("damaged")
    wrong += [f"{path}: set aside, though nothing was damaged" for path in left]
    # What a check of the store was killed with stays for an hour: a slow one may be at work.
    temporary = (path.name for path in (disk / "store" / "tmp").iterdir())
    return wrong + [f"{name}: left in tmp" for name in temporary if not PROBE.fullmatch(name)]


def all_checked(
    lives: Lives, run: Recorded, model: str, *, share: tuple[int, int], every: int
) -> Checked:
    """Every state of the whole run, and the life after every n-th.

    share: which part of them, of how many. Then as many drawn ones as it took lives, where in `tmp`
    too each name is there or not, and crashes of the recovery after one of them.
    """
    number, parts = share
    states = islice(crash_states(run.recording, MODELS[model]), number, None, parts)
    result = checked(lives, states, every=every)
    drawn = drawn_states(run.recording, MODELS[model], seed=number, count=result.lives)
    result += checked(lives, drawn)
    return result + checked_again(lives, run, model, seed=number, every=every)


def checked_again(lives: Lives, run: Recorded, model: str, *, seed: int, every: int) -> Checked:
    """A second crash, in the recovery: the life after one drawn state is recorded in its turn."""
    disk = lives.folder / f"recovering-{os.getpid()}"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    (state,) = drawn_states(run.recording, MODELS[model], seed=seed + 1000, count=1)
    state.write(disk)
    recovery = recorded_run(lives.config, disk)
    count = -(-len(recovery.recording.changes) // every)
    drawn = drawn_states(recovery.recording, MODELS[model], seed=seed, count=count)
    return checked(lives, drawn)


def first_wrong(lives: Lives, *, count: int) -> str | None:
    """The first state of all models that breaks a promise, then of `count` lives of each model.

    For whoever asks whether anything is wrong at all: states without their lives take moments.
    """
    run = recorded_run(lives.config, lives.folder / "recorded")
    for model, what in MODELS.items():
        for state in crash_states(run.recording, what):
            for wrong in (*broken_promises(state), *_unfounded(state)):
                return f"{model} after {state.point} changes: {wrong}"
    for model, what in MODELS.items():
        for state in drawn_states(run.recording, what, seed=count, count=count):
            for wrong in checked(lives, [state]).wrong:
                return f"{model} {wrong}"
    return None


def shared(lives: Lives, model: str, *, processes: int, every: int) -> Checked:
    """All of it, by several processes at once, each with a recording of its own."""
    children = {}
    for number in range(processes):
        place = lives.folder / f"crashes-{number}.json"
        pid = os.fork()
        if pid == 0:
            code = BROKEN
            try:
                run = recorded_run(lives.config, lives.folder / f"recorded-{os.getpid()}")
                result = all_checked(lives, run, model, share=(number, processes), every=every)
                place.write_text(json.dumps(vars(result)))
                code = 0
            except BaseException:  # noqa: BLE001 - a child must end here
                traceback.print_exc()
            finally:
                os._exit(code)
        children[pid] = place
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * processes
    found = (json.loads(place.read_text()) for place in children.values())
    return sum((Checked(**{**one, "wrong": tuple(one["wrong"])}) for one in found), Checked())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=16, help="the life after every n-th state")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--first", type=int, metavar="LIVES", help="ends at the first wrong state, or after so many"
    )
    options = parser.parse_args()
    wrong: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="epochal-crashes-") as name:
        os.environ["HOME"] = name
        config = proof_project(Path(name) / "project").config
        lives = Lives.on_files(config, Path(name)).prepare()
        if options.first is not None:
            first = first_wrong(lives, count=options.first)
            print(first or "nothing is wrong")
            sys.exit(first is not None)
        for model in options.models:
            started = time.monotonic()
            found = shared(lives, model, processes=options.processes, every=options.every)
            wrong += found.wrong
            print(
                f"{model:<10} {found.states} states, {found.lives} lives went on, "
                f"{len(found.wrong)} wrong; {time.monotonic() - started:.0f} s",
                flush=True,
            )
            for text in found.wrong[:5]:
                print(f"  {text}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
