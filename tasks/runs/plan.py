"""What a command would do: each stage done or not, and why not. Reads the store, starts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from epochal.data.errors import CorruptObject
from epochal.data.stage_store.stages import StageRecord, StageStatus, StageStore
from epochal.data.store.open import open_store
from epochal.data.store.store import Store
from epochal.engine.schedule.kinds import PlateauSchedule
from epochal.tasks.config.parts import rule
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.plateau import known_factors
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.run_view import PACKAGE, VERSIONS, RunView, differences
from epochal.tasks.planning.stage import DatasetFacts, RunInputs, Stage
from epochal.tasks.runs.explain import Comparison, most_similar
from epochal.tasks.runs.lookup import look_up, records_of
from epochal.tasks.runs.run_inputs import remembered_run_inputs
from epochal.tasks.runs.run_plans import newest_plan, read_plans, run_names
from epochal.tasks.runs.run_sources import read_sources
from epochal.tasks.stages.registry import list_stages
from epochal.tasks.stages.score import SCORING_DATA

NOT_READ = "data not yet read"
MAX_COMPARED = 8  # plans that a stage which is not done is compared with


@dataclass(frozen=True)
class StageReport:
    """One stage of a plan.

    why: empty where the stage is done; else at least one reason. needed: whether it belongs to the
    run, or comes after the epoch that early stopping ended it with.
    """

    stage: Stage
    done: bool
    why: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class PlanReport:
    """All stages of a run as the store has them.

    factors: of the base rate in the first epochs, by a plateau schedule as far as it is known.
    notes: what the keys do not hold, or not yet, and a person should know.
    """

    config: RunConfig
    run_inputs: RunInputs
    reports: tuple[StageReport, ...]
    statuses: Mapping[str, StageStatus]
    bitwise: bool
    stopped_after: int | None = None
    factors: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_done(self) -> int:
        """Stages of the run that the store has."""
        return sum(report.done for report in self.reports if report.needed)

    @property
    def num_needed(self) -> int:
        """Stages that belong to the run, by what is known of it now."""
        return sum(report.needed for report in self.reports)

    @property
    def stopping(self) -> str | None:
        """What early stopping does to the run, in one sentence, or None."""
        if self.stopped_after is not None:
            return (
                f"early stopping ended the run with epoch {self.stopped_after}: "
                "later epochs are not needed"
            )
        if self.config.early_stopping is None or self.num_done == self.num_needed:
            return None
        return "early stopping may end the run sooner: later epochs may not be needed"

    @property
    def rates(self) -> str | None:
        """What is known of the rates under a plateau schedule, in one sentence, or None."""
        schedule = self.config.schedule
        if not isinstance(schedule, PlateauSchedule):
            return None
        measured, known = f"validation/{rule(schedule, self.config.metrics)[0]}", len(self.factors)
        if not known:
            return f"schedule: no rate is known yet; they follow from {measured}"
        turns = ", ".join(
            f"x {factor:g} from epoch {epoch} on"
            for epoch, factor in enumerate(self.factors)
            if epoch == 0 or factor != self.factors[epoch - 1]
        )
        if known == self.config.epochs:
            return f"schedule: {turns}"
        return f"schedule: {turns}; from epoch {known} on it follows from {measured}, not yet known"

    @property
    def data(self) -> dict[str, DatasetFacts]:
        """What is known of each data set."""
        facts = {
            "train_data": self.run_inputs.train_data,
            "validation_data": self.run_inputs.validation_data,
        }
        if self.run_inputs.scoring_data is not None:
            facts[SCORING_DATA] = self.run_inputs.scoring_data
        return facts

    @property
    def unread(self) -> tuple[str, ...]:
        """Data sets whose content is not yet known."""
        return tuple(name for name, data in self.data.items() if data.fingerprint is None)


def make_plan(config: RunConfig) -> PlanReport:
    """The plan of `config` from what the store remembers; no data is read."""
    store = open_store(config.store, folder=Path(config.folder))
    sources = read_sources(config, store)
    run_inputs = remembered_run_inputs(config, store, sources)
    config = with_epochs(config, num_samples=run_inputs.train_data.num_samples)
    stages = list_stages(config, run_inputs)
    keys = [stage.key for stage in stages if stage.key is not None]
    statuses = look_up(StageStore(store), keys, stages=stages)
    report = report_plan(config, run_inputs, stages, statuses, store)
    notes = (*sources.not_followed, *other_packages(report, run_inputs), *_of_data(report))
    return replace(report, notes=notes)


def _of_data(report: PlanReport) -> Iterator[str]:
    """What is known of the data without reading it, where that is not all."""
    for name, data in report.data.items():
        if data.seen == "changed":
            yield f"{name}: the files that its args name have changed since it was read"
    taken = [name for name, data in report.data.items() if data.seen == "not looked at"]
    if taken:
        yield f"{', '.join(taken)}: content taken as it was last read; `epochal train` looks again"


def other_packages(report: PlanReport, run_inputs: RunInputs) -> Iterator[str]:
    """A sentence for each installed package of another version than stages that are done had."""
    for text in _package_changes(records_of(report.statuses), run_inputs):
        yield (
            f"stages that are done were computed with other versions: {text}; the version of an "
            "installed package is in no key. They are used; reproducibility: strict refuses them"
        )


def _package_changes(records: Mapping[str, StageRecord], run_inputs: RunInputs) -> list[str]:
    packages = run_inputs.all_packages
    now = {PACKAGE + name: version for name, version in packages.items()} | {VERSIONS: packages}
    return differences([record.environment for record in records.values()], now)


def report_plan(
    config: RunConfig,
    run_inputs: RunInputs,
    stages: Sequence[Stage],
    statuses: Mapping[str, StageStatus],
    store: Store,
) -> PlanReport:
    """Each stage with its status in the store, and the reasons where it is not done."""
    run = RunView(config, stages, records_of(statuses))
    stopped = run.stopped_after
    missing = [stage for stage in stages if not _done(stage, statuses)]
    comparison = _comparison(config, run_inputs, stages, store) if missing else None
    reports = [
        StageReport(
            stage=stage,
            done=_done(stage, statuses),
            why=() if _done(stage, statuses) else _why(stage, statuses, comparison),
            needed=stopped is None or stage.epoch is None or stage.epoch <= stopped,
        )
        for stage in stages
    ]
    return PlanReport(
        config=config,
        run_inputs=run_inputs,
        reports=tuple(reports),
        statuses=statuses,
        bitwise=run.is_bitwise,
        stopped_after=stopped,
        factors=tuple(known_factors(run, run_inputs.train_data.num_samples)),
    )


def _done(stage: Stage, statuses: Mapping[str, StageStatus]) -> bool:
    return stage.key is not None and statuses[stage.key].record is not None


def opening_line(run: RunView, run_inputs: RunInputs, store: Store) -> str:
    """What a command begins with: what has changed, how many epochs are used, how many will run."""
    trained = [stage for stage in run.needed if stage.kind == "train"]
    used = sum(run.is_done(stage) for stage in trained)
    noun = "epoch" if len(trained) == 1 else "epochs"
    missing = next((stage for stage in run.needed if not run.is_done(stage)), None)
    reasons = _package_changes(run.records, run_inputs)
    if missing is not None:
        comparison = _comparison(run.config, run_inputs, run.stages, store)
        reasons = [*(() if comparison is None else comparison.reasons(missing)), *reasons]
    changed = f"changed: {'; '.join(reasons)} · " if reasons else ""
    if missing is None:
        return f"{changed}{len(trained)} {noun}, all used as they are"
    return f"{changed}{len(trained)} {noun}: {used} used as they are, {len(trained) - used} to run"


def _comparison(
    config: RunConfig, run_inputs: RunInputs, stages: Sequence[Stage], store: Store
) -> Comparison | None:
    keys = [stage.key for stage in stages]
    own = [entry.plan for entry in read_plans(store, config.name, most=MAX_COMPARED)]
    # The plan of these very stages, which `train` notes as it starts, explains nothing.
    plans = [plan for plan in own if [stage.key for stage in plan.stages] != keys]
    if not own:
        plans = []
        for name in run_names(store.listing("runs")):
            with suppress(CorruptObject):  # another run's folder may be anything
                if (plan := newest_plan(store, name)) is not None:
                    plans.append(plan)
        plans = plans[:MAX_COMPARED]
    return most_similar(config, stages, plans, definitions=run_inputs.definitions)


def _why(
    stage: Stage, statuses: Mapping[str, StageStatus], comparison: Comparison | None
) -> tuple[str, ...]:
    problem = statuses[stage.key].problem if stage.key is not None else None
    if problem is not None:
        return (problem,)
    if comparison is not None and (reasons := comparison.reasons(stage)):
        return reasons
    if stage.key is None:
        return (NOT_READ,)
    return ("not yet computed",)
