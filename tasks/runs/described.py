"""Which generation of a run a config describes.

A generation is described by a config whose stage keys are its own, made from the code and the data
that the generation was planned from. Where several are, the one whose code and data are those of
now comes first, then the one that has the same epochs, then the newest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from epochal.data.errors import EpochalError, InputError, NotFound
from epochal.data.store.store import Store
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.planning.stage import DatasetFacts, RunInputs, Stage
from epochal.tasks.runs.explain import Comparison, source_changes
from epochal.tasks.runs.run_inputs import remembered_run_inputs
from epochal.tasks.runs.run_plans import RunPlan, find_plan, read_plans
from epochal.tasks.runs.run_sources import data_fields, read_sources
from epochal.tasks.stages.registry import KINDS, list_stages
from epochal.tasks.stages.score import SCORING_DATA

MAX_CHANGES = 3  # that are named of one generation
MAX_GENERATIONS = 8  # that are listed


@dataclass(frozen=True)
class DescribedPlan:
    """The plan that a config describes.

    config: with the number of epochs that follows from the data. exact: whether the plan has these
    very stages, or fewer or more epochs of them. changed: what of code and data is not as it was.
    """

    plan: RunPlan
    config: RunConfig
    exact: bool
    changed: tuple[str, ...]


@dataclass(frozen=True)
class _Now:
    """Code and data as they are now; problem: why they cannot be read."""

    inputs: RunInputs
    problem: str | None = None


def described_plan(store: Store, config: RunConfig) -> DescribedPlan:
    """The plan in the store that the config describes.

    Raises NotFound where there is none, with the generations that there are and what differs.
    """
    plans = [entry.plan for entry in read_plans(store, config.name)]
    readable = [(plan, old) for plan in plans if (old := plan.run_config()) is not None]
    if not readable:
        raise NotFound(unreadable(find_plan(store, config.name)))
    now = _now(config, store)
    found: list[DescribedPlan] = []
    for plan, old in readable:
        described = _described(plan, old, config, now)
        if described is None:
            continue
        if described.exact and not described.changed:
            return described
        found.append(described)
    if not found:
        raise NotFound(_none_fits(store, config, readable, now))
    return max(found, key=lambda one: (not one.changed, one.exact))  # of equals the newest


def unreadable(plan: RunPlan) -> str:
    """What to say of a plan whose config this version does not read."""
    return (
        f"{plan.reference} was planned by another version of epochal, whose config this one does "
        "not read; use that version"
    )


def _now(config: RunConfig, store: Store) -> _Now:
    try:
        return _Now(remembered_run_inputs(config, store, read_sources(config, store)))
    except EpochalError as error:  # code that cannot be read, a file that is gone
        nothing = DatasetFacts(None)
        return _Now(RunInputs({}, nothing, nothing), problem=str(error))


def _described(plan: RunPlan, old: RunConfig, config: RunConfig, now: _Now) -> DescribedPlan | None:
    stages = _stages_as_planned(plan, old, config, now.inputs)
    if stages is None:
        return None
    asked, listed = stages
    new_keys = _keys(listed)
    old_keys = _keys(list_stages(old, plan.run_inputs()))
    if any(new is None or new != key for new, key in zip(new_keys, old_keys, strict=False)):
        return None
    return DescribedPlan(
        plan=plan,
        config=asked,
        exact=new_keys == old_keys,
        changed=tuple(_changes(plan.run_inputs(), now)),
    )


def _stages_as_planned(
    plan: RunPlan, old: RunConfig, config: RunConfig, now: RunInputs
) -> tuple[RunConfig, list[Stage]] | None:
    """The config's stages as they would have been listed with the plan's code and data.

    None where they cannot be listed: another schedule does not fit into that plan's updates.
    """
    inputs = _inputs_as_planned(plan, old, config, now)
    try:
        asked = with_epochs(config, num_samples=inputs.train_data.num_samples)
        return asked, list_stages(asked, inputs)
    except InputError:
        return None


def _inputs_as_planned(
    plan: RunPlan, old: RunConfig, config: RunConfig, now: RunInputs
) -> RunInputs:
    """The plan's inputs; of what the config names otherwise, those of now."""
    then = plan.run_inputs()
    old_data, data = data_fields(old), data_fields(config)
    same: set[str] = {name for name in data if data[name] == old_data.get(name)}
    others = data.keys() - same
    same_schedule = old.schedule == config.schedule and len(then.schedule) >= len(now.schedule)

    def mixed(
        of_then: Mapping[str, Mapping[str, str]], of_now: Mapping[str, Mapping[str, str]]
    ) -> dict[str, Mapping[str, str]]:
        kept = {name: files for name, files in of_then.items() if name not in others}
        return {**of_now, **kept}

    return RunInputs(
        sources=mixed(then.sources, now.sources),
        files=mixed(then.files, now.files),
        packages=mixed(then.packages, now.packages),
        definitions=then.definitions,
        train_data=(then if "train_data" in same else now).train_data,
        validation_data=(then if "validation_data" in same else now).validation_data,
        schedule=(then if same_schedule else now).schedule,
        start=(then if old.start == config.start else now).start,
        scoring_data=(then if SCORING_DATA in same else now).scoring_data,
    )


def _keys(stages: list[Stage]) -> list[str | None]:
    # What comes after the last epoch moves when a run grows.
    return [stage.key for stage in stages if KINDS[stage.kind].when != "end"]


def _changes(then: RunInputs, now: _Now) -> Iterator[str]:
    if now.problem is not None:
        yield now.problem
        return
    for name in sorted({**then.sources, **now.inputs.sources}):
        yield from source_changes(
            name,
            then.sources.get(name, {}),
            now.inputs.sources.get(name, {}),
            (then.definitions, now.inputs.definitions),
        )
    for name in sorted({**then.files, **now.inputs.files}):
        if then.files.get(name, {}) != now.inputs.files.get(name, {}):
            yield f"{name}: other files"
    for name in ("train_data", "validation_data", "scoring_data"):
        old, new = getattr(then, name), getattr(now.inputs, name)
        known = (
            old is not None and new is not None and None not in (old.fingerprint, new.fingerprint)
        )
        if known and old.fingerprint != new.fingerprint:
            yield f"{name}: other content"
    if then.start != now.inputs.start:
        yield "start: other weights"
    if any(old != new for old, new in zip(then.schedule, now.inputs.schedule, strict=False)):
        yield "schedule: its target gives other factors"


def _none_fits(
    store: Store, config: RunConfig, plans: list[tuple[RunPlan, RunConfig]], now: _Now
) -> str:
    """The error: each generation, newest first, with what the config has otherwise."""
    newest: dict[int, tuple[RunPlan, RunConfig]] = {}
    for plan, old in plans:
        newest.setdefault(plan.generation, (plan, old))
    lines = [
        f"  {plan.reference}: {_differences(plan, old, config, now)}"
        for plan, old in [*newest.values()][:MAX_GENERATIONS]
    ]
    if len(newest) > MAX_GENERATIONS:
        lines.append(f"  and {len(newest) - MAX_GENERATIONS} more: `epochal runs` lists them")
    first = next(iter(newest.values()))[0].reference
    return (
        f"{store.url} has no run {config.name!r} as this config describes it. Of each that there "
        "is, what the run was trained with → what the config says now:\n"
        + "\n".join(lines)
        + f"\nName one of them, such as {first}, or give --set PATH=VALUE as it was trained; "
        "`epochal train` trains the one of this config"
    )


def _differences(plan: RunPlan, old: RunConfig, config: RunConfig, now: _Now) -> str:
    listed = _stages_as_planned(plan, old, config, now.inputs)
    if listed is None:
        return "its schedule does not fit"
    comparison = Comparison(listed[0], listed[1], plan)
    reasons = dict.fromkeys(reason for stage in listed[1] for reason in comparison.reasons(stage))
    texts = [*reasons][:MAX_CHANGES]
    if len(reasons) > MAX_CHANGES:
        texts.append(f"and {len(reasons) - MAX_CHANGES} more")
    return "; ".join(texts) or "its stages differ"
