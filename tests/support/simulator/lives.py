"""The lives of one history: the command's work, what runs beside it, and what meets them."""

import random
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from support.histories.history import MORE_LIVES, History, Life, WayLeft
from support.histories.judge import noting_what_is_set_aside, set_aside
from support.runs.bare_run import BareRun
from support.runs.forked_runs import found
from support.simulator import channels, clock, ranks, services
from support.simulator.clock import Here
from support.simulator.disk import SimulatedDisk
from support.simulator.faults import Faults
from support.simulator.scheduler import Process, Scheduler
from support.simulator.storage import Objects, Seen, SimulatedStorage

from epochal.data.errors import EpochalError, TrainingFailed
from epochal.data.store import open as opening
from epochal.data.store import retry
from epochal.data.store.local import LocalBackend
from epochal.data.store.local_disk import use_disk
from epochal.data.store.open import open_store
from epochal.tasks.tracking import background, connection, exporter
from epochal.tasks.tracking.background import RunIdentity, Tracker
from epochal.tasks.upkeep import find_garbage, remove_garbage, verify_store

SETS = {
    "launch__kind": "local",
    "launch__max_restarts": 2,
    "checkpoint__every_seconds": 0.05,
    "loader__workers": 0,
}
"""What a simulated run has whatever its history's config says: bytes do not follow from it."""
IN_FOLDERS = 0.3
"""The share of histories with their store in a folder, of those without a fault of a disk."""
EXPECTED_CODES = frozenset({2, 75})
"""Exit codes of errors that say what to do; 3 too, where a trainer was ended or lost."""
BEGIN_BY_S = 1e5
"""Of virtual time: what runs beside a life has begun by then, or its life was over before."""


def in_folder(history: History) -> bool:
    """Whether its store is a folder, over a disk that may lose power; else a bucket."""
    if any(fault.where == "disk" for _, fault in history.faults):
        return True
    return random.Random(f"storage {history.seed}").random() < IN_FOLDERS


class Simulation:
    """One history at work."""

    def __init__(self, history: History, config: Path, folder: Path, usual: dict[str, int]) -> None:
        self.history, self.config, self.usual = history, config, usual
        self.scheduler = Scheduler(history.seed)
        self.store = "memory://simulated/store"
        if in_folder(history):
            self.store = f"file://{folder}/store"
        self._objects, self._seen = Objects(folder), Seen()
        self.faults = Faults((), {})
        self.mlflow = services.SimulatedMlflow(lambda: self.faults)
        self.prefect = services.SimulatedPrefect(lambda: self.faults)
        self.lives = 0
        self.reached: list[bool] = []
        self.broken: str | None = None
        self.notices: list[str] = []
        self.counted: dict[str, int] = {}
        self._interruptions: dict[Process, Any] = {}
        self._folder = folder
        self._left = WayLeft(usual)
        self._put_in_place()

    def _put_in_place(self) -> None:
        clock.put_in_place()
        ranks.put_in_place()
        Here.scheduler = self.scheduler
        ranks.World.faults = lambda: self.faults
        ranks.World.interrupt = self._interrupt
        opening.backend_at = self._backend_at
        use_disk(SimulatedDisk(self.scheduler, lambda: self.faults, folder=self._folder / "attic"))
        retry._random = self.scheduler.random
        background.connect = lambda uri: self.mlflow
        noting_what_is_set_aside(self._folder)
        background.unreachable = lambda uri: None
        connection.tracker_lock = exporter.tracker_lock = self.mlflow.locked

    def _backend_at(self, address: str) -> SimulatedStorage:
        assert address == self.store, address
        folder = address.removeprefix("file://")
        inner = self._objects if folder == address else LocalBackend(Path(folder))
        return SimulatedStorage(inner, self.scheduler, lambda: self.faults, self._seen)

    def _interrupt(self, process: Process) -> None:
        """As SIGTERM."""
        import signal

        interruption = self._interruptions.get(process)
        if interruption is None:
            self.scheduler.kill(process, -signal.SIGTERM)
        else:
            interruption._note(signal.SIGTERM, None)

    # --- lives -------------------------------------------------------------------------------

    def run(self) -> bool:
        """Whether it came to its end."""
        for life in self.history.lives:
            self._live(life)
            self.reached += self.faults.reached
            if self.over:
                return False
        for _ in range(MORE_LIVES):
            if self._live(Life()):
                self.faults = Faults((), {})
                if self.scheduler.under_way:
                    self._after_late_requests()
                return not self.over
            if self.over:
                return False
        return False

    def _after_late_requests(self) -> None:
        """A request may be done after the run: what it brings then is for `gc` to take."""
        scheduler = self.scheduler
        scheduler.wait(lambda: not scheduler.under_way, "the last late request")
        last = Process("gc-at-the-end")
        scheduler.spawn(last, last.name, partial(self._look_after, last, "gc"))
        scheduler.wait(lambda: self._is_gone(last), "gc at the end")

    @property
    def over(self) -> bool:
        """Whether there is no sense in going on."""
        return self.broken is not None or self.scheduler.deadlock is not None

    def _live(self, life: Life) -> bool:
        """One life; whether it came to its end."""
        scheduler = self.scheduler
        self.lives += 1
        number = self.lives
        usual = {where: self._left.operations(where) for where in self.usual}
        if "process" in usual:  # of the micro-steps each rank has its share
            usual["process"] = -(-usual["process"] // life.processes)
        self.faults = Faults(life.faults, usual)
        scheduler.note(f"life {number}")
        flow = Process(f"flow{number}")
        outcome: list[str] = []
        before = len(self.notices)
        work = partial(self._command, flow, life.processes, outcome)
        scheduler.spawn(flow, flow.name, work)
        others = [flow]
        for place, (what, at) in enumerate(life.beside):
            other = Process(f"{what}{number}-{place}")
            others.append(other)
            begin = partial(self._beside, other, what, at, flow, life)
            scheduler.spawn(other, other.name, begin)
        scheduler.wait(lambda: all(map(self._is_gone, others)), "the end of the life")
        self.counted = dict(self.faults.counted)
        self._left.take_off(self.counted)
        self._interruptions.clear()
        channels.ENDS.clear()
        scheduler.note(f"life {number} ended {outcome}")
        if not (outcome or any(self.faults.reached) or self.history.lied(number) or self.over):
            told = "; ".join(self.notices[before:])
            self.broken = f"life {number} was met by nothing, and stopped: {told}"
        return outcome == ["whole"]

    def _is_gone(self, process: Process) -> bool:
        return self.scheduler.is_over(process) and all(map(self._is_gone, process.children))

    def _beside(self, process: Process, what: str, at: float, flow: Process, life: Life) -> None:
        first = at * self.usual.get("store", 0)
        self.scheduler.wait(
            lambda: self.faults.counted["store"] >= first or not flow.alive, "its turn", BEGIN_BY_S
        )
        if not flow.alive:
            return
        if what == "second":
            self._command(process, life.processes, [])
        else:
            self._look_after(process, what)

    def _look_after(self, process: Process, what: str) -> None:
        """`gc --yes` or `verify`, as a process of its own."""

        def work() -> None:
            store = open_store(self.store)
            if what == "gc":
                remove_garbage(store, find_garbage(store))
            else:
                verify_store(store)

        self._expected(process, work)
        self.scheduler.kill(process, 0)

    def _expected(self, process: Process, work: Callable[[], None]) -> bool:
        """Does it; whether it came to its end. What no user may see is noted."""
        try:
            work()
        except EpochalError as error:
            self.notices.append(f"{process.name}: {type(error).__name__}: {error}")
            lost = isinstance(error, TrainingFailed) and self.faults.met({"process", "channel"})
            if error.exit_code not in EXPECTED_CODES and not lost:
                self.broken = traceback.format_exc()
            return False
        except Exception:  # noqa: BLE001 - whatever it is, a user would see its traceback
            self.broken = traceback.format_exc()
            return False
        return True

    def _command(self, process: Process, processes: int, outcome: list[str]) -> None:
        """What `epochal train` does, from the opening of the run to its end."""
        whole = self._expected(process, lambda: self._train(process, processes))
        if whole:
            outcome.append("whole")
        self.scheduler.kill(process, 0)

    def _train(self, process: Process, processes: int) -> None:
        run = BareRun(self.config, **SETS, store=self.store, launch__processes=processes)
        self.run_of_last = run
        self._interruptions[process] = run.session.interruption
        tracker = self._tracker(run)
        run.run.tracker, run.session.deliver_part = tracker, tracker.deliver_part
        tracker.start(computing=not run.view.is_whole)
        status = "KILLED"
        try:
            for stage in run.run.stages():
                self.prefect.report("Running")
                run.run.run_stage(stage)
                self.prefect.report("Completed")
            status = "FINISHED"
        finally:
            if process.alive:
                tracker.finish(status, best=run.view.best, tags={})
                run.run.close()
        store = run.session.store
        remove_garbage(store, find_garbage(store))

    def _tracker(self, run: BareRun) -> Tracker:
        plan, config = run.plan, run.view.config
        return Tracker(
            uri="sqlite:///simulated",
            experiment=config.tracking.experiment,
            run=RunIdentity(
                name=plan.run,
                generation=plan.generation,
                branched_from=plan.branched_from,
                shared_epochs=plan.shared_epochs,
                identity=plan.identity,
                lineage=plan.lineage,
            ),
            params={"epochs": str(config.epochs)},
            tags={},
            stages=run.session.stage_store,
            log_every_updates=1,
            per_group=False,
            notice=self.notices.append,
            thinned=False,
        )

    # --- what is left ------------------------------------------------------------------------

    def what_is_left(self) -> dict[str, Any]:
        """All that must be equal, plain JSON. tracker: metric and update → values in MLflow."""
        body = found(self.run_of_last)
        points: dict[str, list[str]] = {}
        for held in self.mlflow.runs.values():
            if held.deleted:
                continue
            for key, step, _, value in held.points:
                if not key.startswith("goodput"):
                    points.setdefault(f"{key} at update {step}", []).append(float(value).hex())
        body["tracker"] = {name: sorted(values) for name, values in sorted(points.items())}
        damaged = set_aside(self._folder)
        return {**body, "damaged": damaged, "points": [], "twice": [], "changed": []}
