"""What a run is and where it came from: when, where, how long, of which commit, unlike which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from epochal.data.documents import load_document
from epochal.data.errors import CorruptObject, EpochalError
from epochal.tasks.config.run import flatten
from epochal.tasks.goodput.run import RunGoodput
from epochal.tasks.report.page.curves import Progress
from epochal.tasks.runs.explain import change, shown, source_changes
from epochal.tasks.runs.find_run import FoundRun
from epochal.tasks.runs.open_epoch import OpenEpoch
from epochal.tasks.runs.run_plans import RunPlan, find_plan
from epochal.tasks.runs.summary import EpochRow
from epochal.tasks.stages.average import average_text

MAX_ATTEMPTS = 50
"""Commands that are read of a run, the newest ones."""
MAX_ATTEMPT_BYTES = 1 << 20
MAX_CHANGES = 12
SHORT_COMMIT = 12
NO_DIFFERENCE = frozenset({"folder", "name", "store"})
"""Fields that say where a run lies."""
NOTHING = "–"


def run_facts(
    run: FoundRun,
    rows: Sequence[EpochRow],
    progress: Progress,
    goodput: RunGoodput | None,
    open_: OpenEpoch | None = None,
) -> dict[str, str]:
    """What the run is, by name; what is not known is left out."""
    plan, best = run.plan, run.best
    tries: list[Mapping[str, Any]] = []
    unread = None
    try:
        tries += _attempts(run)
    except EpochalError as error:
        unread = f"not known: {error}"
    stopped = "" if run.stopped_after is None else ", stopped early"
    facts: dict[str, str | None] = {
        "epochs": f"{len(rows)} of {run.config.epochs}{stopped}",
        "under way": None if open_ is None else open_.text,
        "best": None if best is None else f"{best.metric} {best.value:.4g} in epoch {best.epoch}",
        "average": average_text(run),
        "began": moment_text(progress.first_ms),
        "last worked on": moment_text(progress.last_ms),
        "work": None if goodput is None else duration(goodput.whole.wall_seconds),
        "host": unread or _each(one.get("host") for one in tries),
        "commit": _each(_commit(one.get("git_commit")) for one in tries),
        "torch": _each(_version(one, "torch") for one in tries),
        "samples": f"{max(row.trained or 0 for row in rows):,}" if rows else None,
        "policy": run.config.sampling.policy,
        "seed": str(run.config.seed),
        "branched from": _branched(run, plan),
        "weights sha256": run.weights_sha256 or "the last epoch is not trained yet",
    }
    return {name: value for name, value in facts.items() if value is not None}


def _branched(run: FoundRun, plan: RunPlan) -> str | None:
    if plan.branched_from is None:
        return None
    text = (
        f"{plan.branched_from}, sharing {plan.shared_epochs} epoch{'s' * (plan.shared_epochs != 1)}"
    )
    try:
        parent = find_plan(run.store, plan.branched_from)
    except EpochalError:  # its plans were deleted, or are damaged
        return text
    found = changes(parent, plan)
    more = f"; {len(found) - MAX_CHANGES} more" * (len(found) > MAX_CHANGES)
    return f"{text}; {'; '.join(found[:MAX_CHANGES]) or 'no field differs'}{more}"


def changes(before: RunPlan, now: RunPlan) -> list[str]:
    """How a plan differs from another one: fields of the config, files of code, data."""
    old, new = (dict(flatten(plan.config)) for plan in (before, now))
    found = [
        change(path, old.get(path), new.get(path))
        for path in sorted({**old, **new})
        if path not in NO_DIFFERENCE and old.get(path) != new.get(path)
    ]
    for name in sorted({**before.sources, **now.sources}):
        found += source_changes(
            name,
            before.sources.get(name, {}),
            now.sources.get(name, {}),
            (before.definitions, now.definitions),
        )
    for name in ("train_data", "validation_data"):
        one, other = getattr(before, name), getattr(now, name)
        if one != other:
            found.append(change(f"{name} content", _short(one), _short(other)))
    return found


def differing(runs: Sequence[FoundRun]) -> list[list[str]]:
    """The fields in which runs differ: a row for each, its name and the value of every run."""
    configs = [dict(flatten(run.plan.config)) for run in runs]
    rows = [
        [path, *(shown(config.get(path)) for config in configs)]
        for path in sorted({path for config in configs for path in config})
        if path not in NO_DIFFERENCE and len({repr(config.get(path)) for config in configs}) > 1
    ]
    sources = [_files(run.plan) for run in runs]
    rows += [
        [name, *(_short(files.get(name)) for files in sources)]
        for name in sorted({name for files in sources for name in files})
        if len({files.get(name) for files in sources}) > 1
    ]
    for name in ("train_data", "validation_data"):
        values = [getattr(run.plan, name) for run in runs]
        if len(set(values)) > 1:
            rows.append([f"{name} content", *map(_short, values)])
    return rows


def _files(plan: RunPlan) -> dict[str, str]:
    return {
        f"{name} {file}": sha256
        for name, files in plan.sources.items()
        for file, sha256 in files.items()
    }


def _short(digest: str | None) -> str:
    return NOTHING if digest is None else digest[:8]


def duration(seconds: float) -> str:
    """Seconds as a person says them: `1 h 04 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:  # noqa: PLR2004 - of a minute
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - of an hour
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def moment_text(since_1970_ms: int | None) -> str | None:
    """A moment to the minute; None for one that no clock has said."""
    if since_1970_ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(since_1970_ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _attempts(run: FoundRun) -> Iterator[Mapping[str, Any]]:
    """What the commands that computed the run wrote down of themselves, the newest first."""
    store, folder = run.store, f"runs/{run.plan.run}/attempts"
    paths = sorted(store.listing(folder), reverse=True)[:MAX_ATTEMPTS]

    def read(path: str) -> Mapping[str, Any]:
        load = partial(load_document, name=path, max_bytes=MAX_ATTEMPT_BYTES)
        try:
            return store.read_intact(path, load, max_bytes=MAX_ATTEMPT_BYTES)
        except (CorruptObject, FileNotFoundError):
            return {}

    for body in store.map(read, paths):
        if body.get("plan") == run.plan.reference:
            yield body


def _version(attempt: Mapping[str, Any], name: str) -> Any:
    versions = attempt.get("versions")
    return versions.get(name) if isinstance(versions, dict) else None


def _commit(value: Any) -> Any:
    """A commit in short; `, changed` stays where the files were not those of the commit."""
    if not isinstance(value, str):
        return None
    commit, mark, _ = value.partition("-")
    return f"{commit[:SHORT_COMMIT]}{', with changes' if mark else ''}"


def _each(values: Iterator[Any] | Any) -> str | None:
    """All values that are known, once each."""
    known = dict.fromkeys(value for value in values if isinstance(value, str) and value)
    return ", ".join(known) or None
