"""The tree of stages that the runs of a sweep make: what they share, and who may work when.

A stage has one key in all runs that share it. A run at work has a claim on every stage that it will
compute, and no other run starts that needs one of these: so each is computed once, a trunk before
its branches. A claim ends with its stage, not with the run: branches begin as soon as the trunk is
there, while the run that has trained it goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from epochal.data.hashing import digest
from epochal.data.stage_store.stages import StageRecord, StageStore
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import RunView
from epochal.tasks.planning.stage import DatasetFacts, RunInputs, Stage
from epochal.tasks.runs.lookup import look_up, records_of
from epochal.tasks.runs.run_inputs import remembered_run_inputs
from epochal.tasks.runs.run_sources import data_fields, read_sources
from epochal.tasks.stages.registry import KINDS, list_stages
from epochal.tasks.stages.score import SCORING_DATA
from epochal.tasks.sweeps.members import Member

Goal = int | None
"""How many epochs a run is to have; None: all."""


@dataclass(frozen=True)
class PlannedRun:
    """A run with its stages. unread: its data sets that were not read yet.

    Keys of stages of unread data are no real ones: they show what runs share, and nothing more.
    """

    member: Member
    view: RunView
    run_inputs: RunInputs
    unread: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """Of all stages, in order; empty while they cannot be known."""
        keys = [stage.key for stage in self.view.stages]
        return [key for key in keys if key is not None] if None not in keys else []

    @property
    def epochs(self) -> int:
        """Of the whole run, by what is known of it now."""
        return sum(stage.kind == "train" for stage in self.view.needed)

    @property
    def epochs_done(self) -> int:
        """Trained epochs, from the first, that the store has."""
        return sum(stage.kind == "train" and self.view.is_done(stage) for stage in self.view.needed)

    def upto(self, goal: Goal) -> list[Stage]:
        """The stages that are to be done for it."""
        return [stage for stage in self.view.needed if is_within(stage, goal)]

    def missing(self, goal: Goal) -> list[Stage]:
        """Those of them that are not done."""
        return [stage for stage in self.upto(goal) if not self.view.is_done(stage)]


def is_within(stage: Stage, goal: Goal) -> bool:
    """Whether a run that is to have so many epochs has this stage."""
    if goal is None:
        return True
    return KINDS[stage.kind].when == "start" if stage.epoch is None else stage.epoch < goal


class Tree:
    """The runs of a sweep and their stages, as the store has them now."""

    def __init__(self, store: Store) -> None:
        self.stage_store = StageStore(store)
        self.runs: dict[str, PlannedRun] = {}
        self.records: dict[str, StageRecord] = {}

    @classmethod
    def of(cls, members: Sequence[Member]) -> Tree:
        """Plans all of them. Raises InputError for what is wrong with code or store of any."""
        tree = cls.of_store(members[0].config)
        tree.add(members)
        return tree

    @classmethod
    def of_store(cls, config: RunConfig) -> Tree:
        """One without runs, in the store that the config names."""
        return cls(open_store(config.store, folder=Path(config.folder)))

    def add(self, members: Iterable[Member]) -> None:
        """Plans these runs, also such as are there already: what they need may be known by now."""
        planned = [self._planned(member) for member in members]
        self._look_up(planned)
        for run in planned:
            self.runs[run.member.name] = run

    def refresh(self, name: str) -> PlannedRun:
        """The run as the store has it now: asked for the stages that were not done."""
        run = self.runs[name]
        self._look_up([run])
        return run

    def _planned(self, member: Member) -> PlannedRun:
        config, store = member.config, self.stage_store.store
        run_inputs = remembered_run_inputs(config, store, read_sources(config, store))
        config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
        as_read, unread = _as_if_read(config, run_inputs)
        view = RunView(config, list_stages(config, as_read), self.records)
        return PlannedRun(member, view, run_inputs, unread)

    def _look_up(self, planned: Sequence[PlannedRun]) -> None:
        stages = {
            stage.key: stage
            for run in planned
            for stage in run.view.stages
            if stage.key is not None and stage.key not in self.records
        }
        self.records |= records_of(
            look_up(self.stage_store, stages, stages=stages.values()) if stages else {}
        )

    # --- what runs share ---

    def distinct(self, names: Collection[str] | None = None) -> dict[str, Stage]:
        """Key → each stage of the runs once. names: of which runs; None: of all."""
        found: dict[str, Stage] = {}
        for name, run in self.runs.items():
            if names is None or name in names:
                for number, stage in enumerate(run.view.needed):
                    found.setdefault(stage.key or f"{name} {number}", stage)
        return found

    @property
    def epochs_distinct(self) -> int:
        """Epochs of training, each once."""
        return sum(stage.kind == "train" for stage in self.distinct().values())

    @property
    def epochs_sum(self) -> int:
        """Epochs of all runs: what they would train one by one, each for itself."""
        return sum(run.epochs for run in self.runs.values())

    @property
    def epochs_done(self) -> int:
        """Of the distinct epochs, those that the store has."""
        return sum(
            stage.kind == "train" and key in self.records for key, stage in self.distinct().items()
        )

    # --- who may work ---

    def next_run(self, waiting: Mapping[str, Goal], at_work: Mapping[str, Goal]) -> str | None:
        """Which of the waiting runs is to start now; None: none may, before another has gone on.

        Of several the one with the most epochs left: what takes longest begins first.
        """
        claimed = {
            stage.key for name, goal in at_work.items() for stage in self.runs[name].missing(goal)
        }
        free = [
            name
            for name, goal in waiting.items()
            if not (missing := [stage.key for stage in self.runs[name].missing(goal)])
            or not at_work
            or (None not in claimed and claimed.isdisjoint(missing) and None not in missing)
        ]
        return max(free, key=lambda name: self.epochs_left(name, waiting[name]), default=None)

    def awaited(self, name: str, goal: Goal, at_work: Mapping[str, Goal]) -> str | None:
        """The run at work whose epochs this one waits for; None if it waits for none."""
        missing = {stage.key for stage in self.runs[name].missing(goal)}
        for other, until in at_work.items():
            if not missing.isdisjoint(stage.key for stage in self.runs[other].missing(until)):
                return other
        return None

    def epochs_left(self, name: str, goal: Goal) -> int:
        """Epochs of training that the run still needs for it."""
        return sum(stage.kind == "train" for stage in self.runs[name].missing(goal))


def _as_if_read(config: RunConfig, run_inputs: RunInputs) -> tuple[RunInputs, tuple[str, ...]]:
    """The inputs with a made-up content for data that was not read, and the names of such data."""
    facts = {
        "train_data": run_inputs.train_data,
        "validation_data": run_inputs.validation_data,
        SCORING_DATA: run_inputs.scoring_data,
    }
    data = {str(field): one for field, one in data_fields(config).items()}
    unread = tuple(
        name for name, one in facts.items() if one is not None and one.fingerprint is None
    )

    def seen(name: str) -> DatasetFacts | None:
        one = facts[name]
        if name not in unread or one is None:
            return one
        made_up = digest("unread", data[name].model_dump(mode="json"))
        return replace(one, fingerprint=made_up)

    train, validation = seen("train_data"), seen("validation_data")
    assert train is not None
    assert validation is not None
    return (
        replace(
            run_inputs,
            train_data=train,
            validation_data=validation,
            scoring_data=seen(SCORING_DATA),
        ),
        unread,
    )
