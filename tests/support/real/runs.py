"""Runs of the real command on real parts: an unbroken one, and histories to compare with it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from support.histories.history import MORE_LIVES, Ending, History, Life, WayLeft
from support.real.command import RealCommand
from support.real.found import Found, differences, found
from support.real.machine import Machine, may_mount, mount, unmount
from support.real.nemesis import OTHER, Nemesis, Whole
from support.real.project import EPOCHS, MICRO_STEPS, real_project
from support.runs.project import call, environment

from epochal.data.testing.s3 import S3Server

QUICK = {"workers": 0, "checkpoint": {"every_updates": 1}}
"""What of a config acts on no number: a history draws it."""

BUCKET, PREFIX = "real", "run"
ENDS = frozenset({0, 2, 3, 75, -9, -15})
"""How a command may end that something has met; 1 would be a defect."""

UNDELIVERED = "what is not delivered stays in the store"
"""Of the line by which a command says that MLflow has failed: the next command delivers."""

LOOK_S, FAMILY_S = 0.02, 0.3
PATIENCE_S, LIVES_LONG, LONG_S = 300.0, 6.0, 100.0
"""A life hangs after so many seconds and so many times those of an unbroken one: the patience with
a store that is away is 60 s, and this machine may have other work."""


@dataclass
class _Life:
    """How one ended. codes: of its commands. wrong: what no life may do. undelivered: what it says
    of MLflow where that has failed.
    """

    codes: list[int]
    reached: tuple[bool, ...]
    wrong: list[str]
    result: dict | None
    requests: dict[str, int]
    micro_steps: int
    undelivered: str | None


@dataclass
class RealRuns:
    """folder: of all of them. tracker: an SQLite file with MLflow's tables, and nothing in it.

    port: of the S3 server; 0: any. step_seconds: how long a micro-step takes at least.
    """

    folder: Path
    size_mb: int
    prefect_api: str
    tracker: Path
    port: int = 0
    step_seconds: float = 0.1

    def unbroken(self, name: str) -> tuple[Whole, Found]:
        """A run without any fault."""
        with self._place(name, QUICK) as place:
            began = time.monotonic()
            life = place.live(Life(), 0, None)
            seconds = time.monotonic() - began
            assert life.codes == [0], place.told()
            assert not life.wrong, life.wrong
            left, wrong = place.found(life.result)
            assert not wrong, wrong
        return Whole(life.requests, MICRO_STEPS, seconds), left

    def inline(self, name: str, config: dict) -> Found:
        """What a run leaves that is computed in this process: a third of the processor's time."""
        with self._place(name, config) as place, environment(**place.variables):
            done = call("train", str(place.configs[0]), "--set", "launch.kind=inline", "--json")
            assert done.code == 0, done.err
            left, wrong = place.found(done.json)
        assert not wrong, wrong
        return left

    def history(self, history: History, whole: Whole, expected: Found) -> Ending:
        """Runs it. Its folder stays where it did not end as it must."""
        reached: list[bool] = []
        wrong: list[str] = []
        notes: list[str] = []
        own_clock = any("clock" in fault.kind for _, fault in history.faults)
        with self._place(f"history-{history.seed}", history.config, own_clock=own_clock) as place:
            lives = [*history.lives, *[Life()] * MORE_LIVES]
            last: _Life | None = None
            way = WayLeft({**whole.requests, "micro-steps": whole.micro_steps})
            for number, life in enumerate(lives):
                last = place.live(life, number, _left_of(whole, way))
                way.take_off({**last.requests, "micro-steps": last.micro_steps})
                reached += last.reached
                wrong += [f"life {number}: {one}" for one in last.wrong]
                notes.append(f"life {number} ended with {last.codes}")
                if last.undelivered is not None:
                    notes.append(f"life {number}: {last.undelivered}")
                    continue
                faultless = number + 1 >= len(history.lives)
                if faultless and last.result is not None:
                    break
            whole_at_end = last is not None and last.result is not None
            differs: list[str] = []
            if whole_at_end:
                left, damaged = place.found(last.result)
                differs = [*damaged, *differences(left, expected)]
            ending = Ending(
                differs=tuple(differs), whole=whole_at_end, reached=tuple(reached),
                broken="\n".join(wrong) or None, lives=number + 1, notes=tuple(notes),
            )  # fmt: skip
            place.keep = not ending.right
        return ending

    @contextmanager
    def _place(self, name: str, config: dict, *, own_clock: bool = False) -> Iterator["_Place"]:
        place = _Place(self, self.folder / name, config, own_clock=own_clock)
        try:
            with place.server:
                yield place
        finally:
            place.clear()


class _Place:
    """Where one run lives: a store, a tracker, two machines, a copy of the project on each."""

    def __init__(self, runs: RealRuns, folder: Path, config: dict, *, own_clock: bool) -> None:
        self.folder, self.keep = folder, False
        folder.mkdir(parents=True)
        tracker = folder / "mlflow.db"
        shutil.copyfile(runs.tracker, tracker)
        self.data = folder / "s3"
        self.data.mkdir()
        if may_mount():
            assert mount("--bind", str(self.data), str(self.data))
        self.server = S3Server(self.data, port=runs.port, buckets=[BUCKET])
        tmp_mb = 4 * runs.size_mb + 200
        self.machines = [
            Machine(name, folder / name, tmp_mb, own_clock) for name in ("first", "other")
        ]
        self.configs = [
            real_project(
                folder / f"project-{number}", size_mb=runs.size_mb,
                store=f"s3://{BUCKET}/{PREFIX}", tracker=f"sqlite:///{tracker}",
                loader={"batch_size": 8, "workers": config["workers"]},
                checkpoint=config["checkpoint"], epochs=config.get("epochs", EPOCHS),
            ).config
            for number in range(2)
        ]  # fmt: skip
        self.variables = {
            **self.server.environment,
            "PREFECT_API_URL": runs.prefect_api,
            "STEP_SECONDS": str(runs.step_seconds),
        }
        self.commands: list[RealCommand] = []

    def live(self, life: Life, number: int, whole: Whole | None) -> _Life:
        """One life, to its end."""
        elsewhere = any(fault.kind == OTHER for fault in life.faults)
        machine = self.machines[elsewhere]
        nemesis = Nemesis(self.server, whole or Whole({}, MICRO_STEPS, 1.0), life.faults, self.data)
        nemesis.begin()
        begin = partial(RealCommand, machine, variables=self.variables, processes=life.processes)
        main = begin(self.configs[elsewhere], str(number))
        commands, waiting, looked_s = [main], [*life.beside], 0.0
        self.commands.append(main)
        wrong: list[str] = []
        longest_s = PATIENCE_S + LIVES_LONG * (LONG_S if whole is None else whole.seconds)
        while any(one.runs for one in commands):
            now = time.monotonic()
            for one in [one for one in waiting if now - main.began > one[1] * whole.seconds]:
                waiting.remove(one)
                commands.append(begin(self.configs[not elsewhere], f"{number}-second"))
                self.commands.append(commands[-1])
            nemesis.look(main)
            if now - looked_s > FAMILY_S:
                looked_s = now
                for one in commands:
                    one.look()
            if now - main.began > longest_s:
                wrong.append(f"it hangs after {longest_s:.0f} s")
                for one in commands:
                    one.end()
            time.sleep(LOOK_S)
        reached = nemesis.end()
        for one in commands:
            wrong += [f"left behind: {line}" for line in one.left()]
            one.end()
            wrong += _defects(one)
            if one.process.returncode != 0 and not any(reached):
                wrong.append(f"nothing met it, and it ended with {one.process.returncode}")
        ended = [one for one in commands if one.process.returncode == 0]
        codes = [one.process.returncode for one in commands]
        result = ended[0].result() if ended else None
        undelivered = _undelivered(ended[0]) if ended else None
        return _Life(codes, reached, wrong, result, nemesis.requests, main.micro_steps, undelivered)

    def found(self, result: dict) -> tuple[Found, list[str]]:
        return found(self.data, BUCKET, PREFIX, result)

    def told(self) -> str:
        return "\n".join(one.errors.read_text() for one in self.commands)

    def clear(self) -> None:
        for one in self.commands:
            one.end()
        for one in self.machines:
            one.clear()
        if may_mount():
            unmount(self.data)
        if not self.keep:
            shutil.rmtree(self.folder)


def _undelivered(command: RealCommand) -> str | None:
    """The line that says that MLflow has not got all of it, or None."""
    lines = command.errors.read_text().splitlines()
    return next((line for line in lines if UNDELIVERED in line), None)


def _left_of(whole: Whole, way: WayLeft) -> Whole:
    """What a life has before it. A start takes as long as ever, some half of the time."""
    return Whole(
        {of: way.operations(of) for of in whole.requests},
        way.operations("micro-steps"),
        whole.seconds * (1 + way.share("micro-steps")) / 2,
    )


def _defects(command: RealCommand) -> list[str]:
    """What of its end no user may see."""
    code, text = command.process.returncode, command.errors.read_text()
    if code not in ENDS:
        return [f"it ended with {code}: {text[-1500:]}"]
    return [f"it showed a traceback: {text[-3000:]}"] if "Traceback" in text else []
