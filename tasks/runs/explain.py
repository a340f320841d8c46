"""Why a stage is not done although a similar one is: which field changed, from what to what.

Two lists of stages are compared section by section (`tasks.planning.inputs`). A changed section
is reported by the config's fields in it, or by the files or data that it was made from. A stage
whose own sections agree inherits the reasons of the parents that differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from epochal.data.errors import BadStore
from epochal.data.secrets import masked
from epochal.tasks.config.run import RunConfig, flatten
from epochal.tasks.planning.stage import Stage
from epochal.tasks.runs.run_plans import RunPlan
from epochal.tasks.stages.registry import KINDS

Definitions = Mapping[str, Mapping[str, str]]
"""File → function or class → digest."""
OTHER_DIGESTS = "another version of epochal takes the digests of code in another way"
"""Of plans of before files were digested by their syntax trees."""
MAX_DEFINITIONS = 3  # that are named of a file
MAX_VALUE_CHARS = 60
SHORT_DIGEST = 8

_FIELDS_OF_SECTION: dict[str, tuple[str, ...]] = {
    "schedule": ("schedule", "epochs"),
    "schedule.plateau": ("schedule", "metrics", "loader.validation_batch_size"),
    "batch_norm": ("batch_norm", "epochs"),
    "sampler": ("batches",),
    **{
        f"{name}.transform": (f"{name}.args",)
        for name in ("train_data", "validation_data", "sampling.scoring.data")
    },
    "augment.train": ("augment.train", "augment.keep", "augment.mask_fill"),
    "augment.validation": ("augment.validation", "augment.keep", "augment.mask_fill"),
    "sampling": ("sampling",),
    "sampling.full": ("sampling.final_full", "sampling.warm_up", "epochs"),
    "sampling.phase": ("sampling", "epochs"),
    "loader": ("loader.batch_size", "loader.drop_last", "loader.validation_batch_size"),
    "metrics": ("metrics.validation",),
    "validation": ("validation", "loader.validation_batch_size"),
    "max_updates": ("max_updates",),
    "sampling.scoring": ("sampling.scoring", "epochs"),
    "metrics.best": ("metrics.best", "metrics.best_mode", "metrics.validation"),
}


def shown(value: Any) -> str:
    """A value in one short line."""
    if value is None:
        return "not set"
    text = masked(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"


def change(path: str, old: Any, new: Any) -> str:
    """A change as it is shown: `optimizer.args.lr: 0.002 → 0.004`."""
    return f"{path}: {shown(old)} → {shown(new)}"


class Comparison:
    """The stages of now against those of an earlier plan."""

    def __init__(
        self,
        config: RunConfig,
        stages: Sequence[Stage],
        plan: RunPlan,
        *,
        definitions: Definitions = MappingProxyType({}),
    ) -> None:
        self._definitions, self._old_definitions = definitions, plan.definitions
        old_config = plan.run_config()
        self._new_config = dict(flatten(config.model_dump(mode="json")))
        plain = plan.config if old_config is None else old_config.model_dump(mode="json")
        self._old_config = dict(flatten(plain))
        self._readable = old_config is not None
        try:
            listed = [] if old_config is None else plan.listed_stages(old_config)
        except BadStore:
            listed, self._readable = [], False
        self._old = {(stage.kind, stage.epoch): stage for stage in listed}
        self._reasons: dict[tuple[str, int | None], tuple[str, ...]] = {}
        self.shared = sum(self.same(stage) for stage in stages)

    def same(self, stage: Stage) -> bool:
        """Whether the earlier plan holds this very stage."""
        old = self._old.get((stage.kind, stage.epoch))
        return old is not None and stage.key is not None and old.key == stage.key

    def reasons(self, stage: Stage) -> tuple[str, ...]:
        """What changed, root causes first; empty if nothing did."""
        place = (stage.kind, stage.epoch)
        if place not in self._reasons:
            self._reasons[place] = tuple(dict.fromkeys(self._find(stage)))
        return self._reasons[place]

    def _find(self, stage: Stage) -> Iterator[str]:
        if not self._readable or self.same(stage):
            return
        old = self._old.get((stage.kind, stage.epoch))
        if old is None:
            yield from self._fields((self._cause(stage),))
            return
        for section in {**old.inputs, **stage.inputs}:
            before, now = old.inputs.get(section), stage.inputs.get(section)
            of = section.removesuffix(".source")
            if (of in old.inputs) != (of in stage.inputs):  # it acts in one of the two alone
                yield from self._fields(_FIELDS_OF_SECTION.get(of, (of,)))
            elif before != now:
                yield from self._section(section, before, now)
        for role in {**old.parents, **stage.parents}:
            old_parent, parent = old.parents.get(role), stage.parents.get(role)
            if old_parent is not None and parent is not None:
                yield from self.reasons(parent)
            elif (only := parent or old_parent) is not None:
                yield from self._fields((KINDS[only.kind].field,))

    def _cause(self, stage: Stage) -> str:
        """The field that asks for a stage which the earlier plan did not have."""
        kind = KINDS[stage.kind]
        is_new_epoch = kind.when == "epoch" and ("train", stage.epoch) not in self._old
        return "epochs" if is_new_epoch else kind.field

    def _section(self, section: str, before: Any, now: Any) -> Iterator[str]:
        if section.endswith(".source") and self._definitions and not self._old_definitions:
            yield OTHER_DIGESTS
            return
        if section.endswith(".source"):
            yield from source_changes(
                section, before or {}, now or {}, (self._old_definitions, self._definitions)
            )
            return
        if section.endswith(".files"):
            yield from _file_changes(section, before or {}, now or {})
            return
        fields = list(self._fields(_FIELDS_OF_SECTION.get(section, (section,))))
        if fields:
            yield from fields
        elif section.endswith("_data"):
            old, new = (_short(value) for value in (before, now))
            yield change(f"{section} content", old, new)
        else:
            yield change(section, before, now)

    def _fields(self, prefixes: tuple[str, ...]) -> Iterator[str]:
        for path in sorted({**self._old_config, **self._new_config}):
            if not any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes):
                continue
            # A field that only one of the two configs has reads as not set: None.
            old, new = self._old_config.get(path), self._new_config.get(path)
            if old != new:
                yield change(path, old, new)


def _short(fingerprint: Any) -> str:
    return "not yet read" if fingerprint is None else str(fingerprint)[:SHORT_DIGEST]


def source_changes(
    section: str,
    before: Mapping[str, str],
    now: Mapping[str, str],
    definitions: tuple[Definitions, Definitions] = ({}, {}),
) -> Iterator[str]:
    """A change for each of the files whose digests differ; definitions: of before and of now."""
    then, later = definitions
    for file in sorted({**before, **now}):
        if before.get(file) != now.get(file):
            old, new = (_digest_of(files, file) for files in (before, now))
            where = _in_which(then.get(file, {}), later.get(file, {}))
            yield change(f"{section} {file}{where}", old, new)


def _file_changes(section: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for file in sorted({**before, **now}):
        if before.get(file) != now.get(file):
            old, new = (_digest_of(files, file) for files in (before, now))
            yield change(f"{section} {file}", old, new)


def _digest_of(files: Mapping[str, str], file: str) -> str:
    return files[file][:SHORT_DIGEST] if file in files else "not there"


def _in_which(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """The functions and classes of a file that differ, `in Net.forward`; empty if none is known."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    named = [name or "statements outside of functions" for name in changed]
    if not before or not now or not named:
        return ""
    more = f" and {len(named) - MAX_DEFINITIONS} more" * (len(named) > MAX_DEFINITIONS)
    return f" in {', '.join(named[:MAX_DEFINITIONS])}{more}"


def changes_since(
    config: RunConfig,
    stages: Sequence[Stage],
    plan: RunPlan,
    *,
    definitions: Definitions = MappingProxyType({}),
) -> list[str]:
    """All that is another than in that plan, root causes first, each once."""
    comparison = Comparison(config, stages, plan, definitions=definitions)
    return list(dict.fromkeys(text for stage in stages for text in comparison.reasons(stage)))


def most_similar(
    config: RunConfig,
    stages: Sequence[Stage],
    plans: Sequence[RunPlan],
    *,
    definitions: Definitions = MappingProxyType({}),
) -> Comparison | None:
    """The comparison with the plan that shares most stages; the first of equals.

    definitions: of the files now, to tell which function of a file has changed.
    """
    comparisons = [Comparison(config, stages, plan, definitions=definitions) for plan in plans]
    return max(comparisons, key=lambda comparison: comparison.shared, default=None)
