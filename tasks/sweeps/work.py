"""A sweep at work: which run is to do what next, and what has become of each.

Holds what was read of the store and told by the runs, and decides by that. Starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from epochal.data.errors import TrainingFailed
from epochal.tasks.config.run import RunConfig
from epochal.tasks.runs.summary import flat_metrics
from epochal.tasks.sweeps.members import Member, Sweep, distinct
from epochal.tasks.sweeps.ranking import Halved, Measure, halved, measure_of, sorted_by
from epochal.tasks.sweeps.tree import Goal, Tree, is_within
from epochal.tasks.sweeps.trials import Trials, check_optuna

State = Literal["waiting", "at work", "done", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Job:
    """A run that is to be trained now. until: epochs after which it is left; None: all."""

    name: str
    config: RunConfig
    until: Goal


@dataclass
class Failure:
    """How a run has failed. code: what its own command would have ended with."""

    text: str
    code: int
    stage: str | None = None
    interrupted: bool = False


@dataclass
class Told:
    """What a run at work has said of itself last."""

    epoch: int | None = None
    live: Mapping[str, Any] = field(default_factory=dict)
    doing: str = ""
    log: str | None = None


class SweepWork:
    """The runs of a sweep, what each is to do, and how it went."""

    def __init__(self, sweep: Sweep, tree: Tree, trials: Trials | None) -> None:
        self.sweep, self.tree, self._trials = sweep, tree, trials
        config = sweep.config
        first = next(iter(tree.runs.values())).member.config
        self.measure = measure_of(first, metric=config.metric, mode=config.mode)
        self._rungs: Measure | None = None
        if config.halving is not None:
            metric = config.halving.metric or config.metric
            mode = config.halving.mode or (config.mode if config.halving.metric is None else None)
            self._rungs = measure_of(first, metric=metric, mode=mode, place="halving.")
        self.failures: dict[str, Failure] = {}
        self.at_work: dict[str, Goal] = {}
        self.told: dict[str, Told] = {}
        self.tracked: dict[str, str | None] = {}
        self.computed: set[str] = set()
        self.skipped: set[str] = set()
        """Runs that are whole and have been delivered: nobody needs to open them again."""
        self.halting: str | None = None
        """Why no further run is begun, or None."""
        self._followed: set[str] = set()

    @classmethod
    def prepared(cls, sweep: Sweep) -> SweepWork:
        """Everything that can be known before anything starts. Raises InputError: what is wrong."""
        trials = None
        members = sweep.members()
        if sweep.config.optuna is not None:
            check_optuna(sweep.config.optuna)
            sweep.check_ends()
            tree = Tree.of_store(sweep.base_config())
            trials = Trials(tree.stage_store.store, sweep)
            measure = measure_of(
                sweep.base_config(), metric=sweep.config.metric, mode=sweep.config.mode
            )
            if not trials.sets:
                trials.propose([], mode=measure.mode)
            members = sweep.proposed(distinct(trials.sets))
            tree.add(members)
        else:
            tree = Tree.of(members)
        return cls(sweep, tree, trials)

    # --- what is to be done ---

    def next_job(self) -> Job | None:
        """The run that is to start now; None: none may, or none is left."""
        if self.halting is not None:
            return None
        waiting = {
            name: goal
            for name, goal in self._goals().items()
            if name not in self.at_work and not self._is_over(name, goal)
        }
        name = self.tree.next_run(waiting, self.at_work)
        while name is not None and (cause := self._doomed(name, waiting[name])) is not None:
            self.failures[name] = cause
            del waiting[name]
            name = self.tree.next_run(waiting, self.at_work)
        if name is None:
            return None
        self.at_work[name] = waiting[name]
        self.told.setdefault(name, Told())
        return Job(name, self.tree.runs[name].member.config, waiting[name])

    def _goals(self) -> Mapping[str, Goal]:
        """Run → how many epochs it is to have by now; without those that are stopped."""
        return self.halved.goals

    @property
    def halved(self) -> Halved:
        """Who goes on, and who is stopped where."""
        views = {name: run.view for name, run in self.tree.runs.items()}
        config = self.sweep.config.halving
        if config is None or self._rungs is None:
            return Halved(dict.fromkeys(views), {})
        return halved(config, views, self._rungs, failed=frozenset(self.failures))

    def _is_over(self, name: str, goal: Goal) -> bool:
        if name in self.failures or name in self.skipped:
            return True
        return not self.tree.runs[name].missing(goal) and (
            goal is not None or name in self._followed
        )

    def _doomed(self, name: str, goal: Goal) -> Failure | None:
        """The failure of another run in a stage that this one needs too."""
        keys = {stage.key for stage in self.tree.runs[name].missing(goal)}
        for other, failure in self.failures.items():
            if failure.code == TrainingFailed.exit_code and failure.stage in keys:
                return Failure(f"as {other}: {failure.text}", failure.code, failure.stage)
        return None

    def propose(self) -> Sequence[Member]:
        """The runs that are proposed by the results so far; none while a result is missing."""
        if self._trials is None or not self._trials.left or self.halting is not None:
            return ()
        if self.at_work or any(state not in {"done", "failed"} for state in self.states.values()):
            return ()
        values = {
            self._place(run.member.set): self.value(name) for name, run in self.tree.runs.items()
        }
        results = [values[self._place(own)] for own in self._trials.sets]
        self._trials.propose(results, mode=self.measure.mode)
        known = {self._place(run.member.set) for run in self.tree.runs.values()}
        members = [
            member
            for member in self.sweep.proposed(distinct(self._trials.sets))
            if self._place(member.set) not in known
        ]
        self.tree.add(members)
        return members

    @staticmethod
    def _place(own: Mapping[str, Any]) -> str:
        return repr(sorted(own.items()))

    @property
    def proposals_left(self) -> int:
        """Runs that are proposed once there are more results."""
        return 0 if self._trials is None else self._trials.left

    # --- what was told ---

    def opened(self, name: str) -> None:
        """The run is open: its data is read, and may be other than it was when it was planned."""
        before = self.tree.runs[name]
        self.tree.add([before.member])
        if before.unread or self.tree.runs[name].keys != before.keys:
            self.tree.add([run.member for run in self.tree.runs.values()])

    def ended_stage(self, name: str, key: str, *, cached: bool, kind: str) -> None:
        """A stage of the run is in the store."""
        if not cached and kind == "train":
            self.computed.add(key)
        if key not in self.tree.records:
            self.tree.refresh(name)

    def ended(
        self, name: str, *, tracked: str | None = None, failure: Failure | None = None
    ) -> None:
        """The run has done what it was to do, or failed."""
        goal = self.at_work.pop(name)
        run = self.tree.refresh(name)
        if tracked is not None:
            self.tracked[name] = tracked
        if failure is not None:
            self.failures[name] = failure
        elif run.missing(goal):
            left = ", ".join(stage.label for stage in run.missing(goal)[:3])
            self.failures[name] = Failure(f"it ended without {left} in the store", 75)
        elif goal is None:
            self._followed.add(name)

    # --- what has become of them ---

    @property
    def states(self) -> dict[str, State]:
        """Run → its state."""
        now = self.halved
        return {name: self._state(name, now) for name in self.tree.runs}

    def _state(self, name: str, now: Halved) -> State:
        if name in self.failures:
            return "interrupted" if self.failures[name].interrupted else "failed"
        if name in self.at_work:
            return "at work"
        if name in now.stopped:
            return "stopped"
        return "done" if self.tree.runs[name].view.is_whole else "waiting"

    def value(self, name: str) -> float | None:
        """What the run is sorted by: its value in its last epoch so far, or its best."""
        view = self.tree.runs[name].view
        last = self.sweep.config.by == "last"
        found = self.measure.last(view) if last else self.measure.best(view)
        return None if found is None else found.value

    @property
    def ranked(self) -> list[str]:
        """The runs, best first."""
        return sorted_by(self.measure, {name: self.value(name) for name in self.tree.runs})

    @property
    def best(self) -> str | None:
        """The best run's name; None where none was validated."""
        return next((name for name in self.ranked if self.value(name) is not None), None)

    @property
    def inline(self) -> bool:
        """Whether its runs are trained in the command's own process."""
        return next(iter(self.tree.runs.values())).member.config.launch.kind == "inline"

    def result(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "runs": [self._result(name) for name in self.tree.runs],
            "epochs": {
                "distinct": self.tree.epochs_distinct,
                "sum": self.tree.epochs_sum,
                "computed": len(self.computed),
            },
        }

    def _result(self, name: str) -> dict[str, Any]:
        run, stopped, failure = self.tree.runs[name], self.halved.stopped, self.failures.get(name)
        halving = self.sweep.config.halving is not None
        return {
            "run": name,
            "set": dict(run.member.set),
            "weights_sha256": run.view.weights_sha256,
            "metrics": flat_metrics(run.view),
            "mlflow_run_id": self.tracked.get(name),
            **({"stopped_after": stopped.get(name)} if halving else {}),
            **({} if failure is None else {"error": failure.text}),
        }

    def epochs_of(self, name: str) -> tuple[int, int]:
        """How many epochs of the run are trained, and how many it is to have."""
        run = self.tree.runs[name]
        return run.epochs_done, sum(
            stage.kind == "train" and is_within(stage, None) for stage in run.view.needed
        )
