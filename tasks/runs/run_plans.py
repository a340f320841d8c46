"""What the store keeps of a run beside its stages: plans, generations, attempts.

`runs/<name>/plans/NNNNNN.json` is written when the list of stage keys changes. While the old and
the new list agree, or one is a prefix of the other, it is the same *generation*: the run was
only made longer or shorter, not changed. Whether a stage is done is decided by its record alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue, ValidationError

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import BadStore, ConfigError, CorruptObject, NotFound
from epochal.data.hashing import digest
from epochal.data.stage_store.status import Damage
from epochal.data.store.store import Store
from epochal.data.types import Frozen
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.stage import DatasetFacts, RunInputs, Stage
from epochal.tasks.stages.registry import KINDS, list_stages

MAX_PLAN_BYTES = 1 << 24  # some 50,000 epochs; read in a second and 300 MB, whatever it holds
_PLAN = re.compile(r"([0-9]{6})\.json")
_GENERATION = re.compile(r"[0-9]{1,9}")


def _check_source(name: str) -> str:
    # `epochal sync` copies these files to MLflow: no plan may name one outside the user's folder.
    if name.startswith("/") or not name.endswith(".py") or {"", ".", ".."} & {*name.split("/")}:
        message = f"{name!r:.80} is no Python file below the config's folder"
        raise ValueError(message)
    return name


SourceFile = Annotated[str, AfterValidator(_check_source)]


class PlannedStage(Frozen):
    """One line of a plan."""

    kind: str
    epoch: int | None = Field(ge=0, strict=True)
    key: str = Field(pattern=r"^[0-9a-f]{64}$")


class RunPlan(Frozen):
    """The stages of a run as they were planned once, and what they were planned from."""

    run: str
    generation: int = Field(ge=1, strict=True)
    branched_from: str | None
    shared_epochs: int | None = Field(ge=0, strict=True)
    stages: tuple[PlannedStage, ...]
    config: dict[str, JsonValue]
    sources: dict[str, dict[SourceFile, str]]
    train_data: str | None
    validation_data: str | None
    num_samples: int | None = None
    schedule: tuple[str, ...] = ()
    start: str | None = None
    scoring_data: str | None = None
    files: dict[str, dict[str, str]] = Field(default_factory=dict)
    packages: dict[str, dict[str, str]] = Field(default_factory=dict)
    definitions: dict[str, dict[str, str]] = Field(default_factory=dict)

    @property
    def reference(self) -> str:
        """`name@generation`, as a person names it."""
        return f"{self.run}@{self.generation}"

    @property
    def identity(self) -> str:
        """A digest that stays the same while the generation grows: what MLflow is searched for."""
        first = [stage.key for stage in self.stages[:2]]
        return digest("generation", [self.run, self.generation, first])

    @property
    def lineage(self) -> tuple[str, ...]:
        """Of each epoch some digits, which stand for its training and all that came before it.

        Of the plans of one generation one is the other's beginning.
        """
        marks, since = list[str](), list[str]()
        for stage in self.stages:
            since.append(stage.key)
            if stage.kind == "train":
                marks.append(digest("lineage", since)[:8])
                since.clear()
        return tuple(marks)

    def run_inputs(self) -> RunInputs:
        """What the keys were made from beside the config."""
        return RunInputs(
            sources=self.sources,
            train_data=DatasetFacts(self.train_data, self.num_samples),
            validation_data=DatasetFacts(self.validation_data),
            schedule=self.schedule,
            start=self.start,
            scoring_data=None if self.scoring_data is None else DatasetFacts(self.scoring_data),
            files=self.files,
            packages=self.packages,
            definitions=self.definitions,
        )

    def run_config(self) -> RunConfig | None:
        """The config, or None if this version of the program does not accept it."""
        try:
            return RunConfig.model_validate(self.config)
        except Exception:  # noqa: BLE001 - a store may hold anything, and validators compute with it
            return None

    def listed_stages(self, config: RunConfig) -> list[Stage]:
        """The stages of the plan's config, each with the key that the plan has for it.

        A later version of Epochal may give a stage another key; what is in the store lies under the
        one that it was planned with.

        Raises BadStore if the plan does not hold together: the store is shared, and whoever writes
        to it may have written anything.
        """
        if config.epochs > len(self.stages):
            raise self._contradiction(f"{len(self.stages)} stages for {config.epochs} epochs")
        try:
            stages = list_stages(config, self.run_inputs())
            keyless = [stage.label for stage in stages if stage.key is None]
        except Exception as error:  # it may contradict itself in any way
            raise self._contradiction(f"{type(error).__name__}: {error!s:.200}") from error
        if keyless:
            raise self._contradiction(f"it leaves out what the key of {keyless[0]} is made from")
        planned = {(stage.kind, stage.epoch): stage.key for stage in self.stages}
        as_planned: dict[str, Stage] = {}
        for stage in stages:  # parents come before the stages that consume them
            as_planned[stage.known_key] = replace(
                stage,
                key=planned.get((stage.kind, stage.epoch), stage.key),
                parents={
                    role: as_planned[parent.known_key] for role, parent in stage.parents.items()
                },
            )
        return [as_planned[stage.known_key] for stage in stages]

    def _contradiction(self, found: str) -> BadStore:
        return BadStore(
            f"the plan of {self.reference} does not hold together ({found}): Epochal did not write "
            f"it; train the run again, or delete runs/{self.run}/plans"
        )


@dataclass(frozen=True)
class NumberedPlan:
    """A plan and its number: the highest is the newest."""

    number: int
    plan: RunPlan


def plan_numbers(listing: Iterable[str], run: str) -> list[int]:
    """The numbers of the plans of `run` among the store's paths, newest first."""
    prefix = f"runs/{run}/plans/"
    matches = [
        _PLAN.fullmatch(path.removeprefix(prefix)) for path in listing if path.startswith(prefix)
    ]
    return sorted((int(match.group(1)) for match in matches if match), reverse=True)


def run_names(listing: Collection[str]) -> list[str]:
    """The names of the runs among the store's paths.

    Raises CorruptObject if a file or a link is where the folder of runs should be.
    """
    if "runs" in listing:
        raise CorruptObject("runs is a file or a symbolic link, expected a folder")
    return sorted({path.split("/")[1] for path in listing if path.startswith("runs/")})


def read_plans(
    store: Store, run: str, *, most: int | None = None, set_aside: bool = False
) -> list[NumberedPlan]:
    """The readable plans of `run`, newest first; of many only the newest `most`.

    set_aside: moves plans that cannot be parsed any more to `damaged/`.
    """
    numbers = plan_numbers(store.listing(f"runs/{run}/plans"), run)[:most]
    plans = (_read_plan(store, run, number, set_aside=set_aside) for number in numbers)
    return [plan for plan in plans if plan is not None]


def generations(store: Store, run: str) -> list[str]:
    """`name@generation` of each generation of `run`, oldest first."""
    numbers = {entry.plan.generation for entry in read_plans(store, run)}
    return [f"{run}@{generation}" for generation in sorted(numbers)]


def newest_plan(store: Store, run: str, *, generation: int | None = None) -> RunPlan | None:
    """The newest plan of `run` (of that generation, if one is given), or None."""
    for number in plan_numbers(store.listing(f"runs/{run}/plans"), run):
        entry = _read_plan(store, run, number)
        if entry is not None and generation in (None, entry.plan.generation):
            return entry.plan
    return None


def _plan_path(run: str, number: int) -> str:
    return f"runs/{run}/plans/{number:06d}.json"


def _read_plan(
    store: Store, run: str, number: int, *, set_aside: bool = False
) -> NumberedPlan | None:
    path = _plan_path(run, number)
    try:
        plan = RunPlan.model_validate(_read_body(store, path))
    except FileNotFoundError:
        return None
    except CorruptObject as error:
        if set_aside:
            store.set_aside(path, str(error))
        return None  # plans only explain; the records decide
    except ValidationError:
        return None  # perhaps written by another version
    return NumberedPlan(number=number, plan=plan) if plan.run == run else None


def check_plan(store: Store, run: str, number: int) -> Damage | None:
    """What is wrong with a plan, if anything is. Changes nothing."""
    path = _plan_path(run, number)
    address = store.address(path)
    try:
        plan = RunPlan.model_validate(_read_body(store, path))
        config = plan.run_config()
        if plan.run != run:
            return Damage(f"{address} is the plan of run {plan.run!r:.80}", path)
        if config is not None:
            plan.listed_stages(config)
    except FileNotFoundError:
        return None  # it was deleted in between
    except CorruptObject as error:
        return Damage(f"{address} is damaged: {error}", path)
    except ValidationError:
        return Damage(f"{address} is no plan that this version of epochal can read")
    except BadStore as error:
        return Damage(f"{address}: {error}", path)
    return None


def _read_body(store: Store, path: str) -> dict[str, Any]:
    load = partial(load_document, name=path, max_bytes=MAX_PLAN_BYTES)
    return store.read_intact(path, load, max_bytes=MAX_PLAN_BYTES)


def find_plan(store: Store, reference: str) -> RunPlan:
    """The newest plan of `name` or `name@generation`. Raises NotFound, naming what there is."""
    name, at, generation = reference.partition("@")
    if at and _GENERATION.fullmatch(generation) is None:
        raise NotFound(f"{reference}: expected NAME or NAME@GENERATION, for example {name}@1")
    plan = newest_plan(store, name, generation=int(generation) if at else None)
    if plan is None:
        names = run_names(store.listing("runs"))
        known = f"it has: {', '.join(names)}" if names else "it has no run yet"
        raise NotFound(
            f"{store.url} has no run {reference!r}; {known}. If it was trained into another store, "
            "name that one with --store"
        )
    return plan


def record_plan(
    store: Store, config: RunConfig, run_inputs: RunInputs, stages: Sequence[Stage]
) -> RunPlan:
    """The plan of these stages: the newest one if it is the same, else a new one, written.

    Plans that cannot be parsed are moved to `damaged/` first: while one is there, `gc` removes
    nothing.
    """
    listed = tuple(
        PlannedStage(kind=stage.kind, epoch=stage.epoch, key=stage.known_key) for stage in stages
    )
    while True:
        known = read_plans(store, config.name, set_aside=True)
        plan = _next_plan(config, run_inputs, listed, [entry.plan for entry in known])
        if known and known[0].plan == plan:
            return plan
        numbers = plan_numbers(store.listing(f"runs/{config.name}/plans"), config.name)
        number = numbers[0] + 1 if numbers else 1
        path = _plan_path(config.name, number)
        data = dump_document(plan.model_dump(mode="json"))
        if len(data) > MAX_PLAN_BYTES:
            raise ConfigError(
                f"epochs: the plan of {len(listed)} stages has {len(data)} bytes, expected at most "
                f"{MAX_PLAN_BYTES}; take fewer, longer epochs (`batches: {{samples: …}}`)"
            )
        try:
            store.put_new(path, data)
        except FileExistsError:
            continue  # another process has just planned this run: look again
        return plan


def _next_plan(
    config: RunConfig, run_inputs: RunInputs, listed: tuple[PlannedStage, ...], known: list[RunPlan]
) -> RunPlan:
    same = _same_generation(_keys_in_epochs(listed), known)
    generation, branched_from, shared = 1, None, None
    if same is not None:
        generation = same.generation
        branched_from, shared = same.branched_from, same.shared_epochs
    elif known:
        generation = max(plan.generation for plan in known) + 1
        origin = max(known, key=lambda plan: shared_epochs(listed, plan.stages))
        branched_from, shared = origin.reference, shared_epochs(listed, origin.stages)
    return RunPlan(
        run=config.name,
        generation=generation,
        branched_from=branched_from,
        shared_epochs=shared,
        stages=listed,
        config=_plain(config),
        sources={name: dict(files) for name, files in run_inputs.sources.items()},
        train_data=run_inputs.train_data.fingerprint,
        validation_data=run_inputs.validation_data.fingerprint,
        num_samples=run_inputs.train_data.num_samples,
        schedule=run_inputs.schedule,
        start=run_inputs.start,
        scoring_data=None
        if run_inputs.scoring_data is None
        else run_inputs.scoring_data.fingerprint,
        files={name: dict(files) for name, files in run_inputs.files.items() if files},
        packages={name: dict(versions) for name, versions in run_inputs.packages.items()},
        definitions={name: dict(defined) for name, defined in run_inputs.definitions.items()},
    )


def _same_generation(keys: list[str], known: list[RunPlan]) -> RunPlan | None:
    """A plan of the generation that these keys belong to, or None.

    All plans of a generation must agree: where a short plan is a prefix of two different longer
    ones, only one of the two may continue its generation. A plan with exactly these keys decides;
    without one the newest generation that fits is taken.
    """
    generations: dict[int, list[RunPlan]] = {}
    for plan in known:
        generations.setdefault(plan.generation, []).append(plan)
    fitting = [plans for plans in generations.values() if all(_agree(keys, plan) for plan in plans)]
    equal = (
        plan
        for plans in fitting
        for plan in plans
        if len(_keys_in_epochs(plan.stages)) == len(keys)
    )
    return next(equal, fitting[0][0] if fitting else None)


def _plain(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _agree(keys: list[str], plan: RunPlan) -> bool:
    # The shorter list is a prefix of the longer one, or they are equal.
    old_keys = _keys_in_epochs(plan.stages)
    return all(new == old for new, old in zip(keys, old_keys, strict=False))


def _keys_in_epochs(stages: Sequence[PlannedStage]) -> list[str]:
    # A longer run averages other checkpoints at its end: that alone makes no new generation.
    return [
        stage.key for stage in stages if stage.kind not in KINDS or KINDS[stage.kind].when != "end"
    ]


def shared_epochs(new: Sequence[PlannedStage], old: Sequence[PlannedStage]) -> int:
    """How many epochs' train stages, from the first, have the same key in both."""
    pairs = zip(
        (stage.key for stage in new if stage.kind == "train"),
        (stage.key for stage in old if stage.kind == "train"),
        strict=False,
    )
    shared = 0
    for new_key, old_key in pairs:
        if new_key != old_key:
            break
        shared += 1
    return shared
