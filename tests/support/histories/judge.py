"""What a run has left, and in what that differs from what an unbroken run leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from support.runs.bare_run import BareRun
from support.runs.forked_runs import found

from epochal.data.store.store import Store
from epochal.tasks.session.session import EpochPart
from epochal.tasks.stages.registry import KINDS
from epochal.tasks.tracking.points import LogEvery, PointReader, Row, part_points

EVERY = LogEvery(log_every_updates=1, per_group=True)

SET_ASIDE = "set-aside.txt"

Rows = Mapping[tuple[str, int], str]
"""(metric, update) → the value's bits, as text."""


def left_by(run: BareRun, parts: Path | None = None) -> dict[str, Any]:
    """All that must be equal, plain JSON. parts: the file in which `noting_parts` wrote rows.

    points: of the rows that MLflow would get of finished stages, how many, and a digest. twice:
    those of them that come twice. changed: those that had another value when an epoch at work gave
    them. damaged: what was set aside.
    """
    body = found(run)
    points: dict[tuple[str, int], str] = {}
    twice = []
    reader = PointReader(run.session.stage_store, log_every=EVERY, history=run.view.records)
    for record in run.view.records.values():
        if KINDS[record.stage].points is None:
            continue
        for row in reader.stage_points(record).steps:
            place = (row.key, row.step)
            if place in points:
                twice.append(f"{row.key} at update {row.step}")
            points[place] = _bits(row)
    told = json.dumps([[*place, points[place]] for place in sorted(points)])
    body["points"] = [len(points), sha256(told.encode()).hexdigest()]
    body["damaged"] = set_aside(parts.parent) if parts is not None else []
    body["twice"] = sorted(twice)
    body["changed"] = sorted(set(_changed(points, parts))) if parts is not None else []
    return json.loads(json.dumps(body))


def noting_what_is_set_aside(folder: Path) -> None:
    """From now on this process notes there what it takes to be damaged: `gc` removes it later."""
    original = Store.set_aside

    def noted(self: Store, path: str, reason: str) -> str | None:
        moved = original(self, path, reason)
        if moved is not None:
            with (folder / SET_ASIDE).open("a") as file:
                file.write(f"{path} was set aside: {reason}\n")
        return moved

    # Of this process alone, which is there for one life: whoever opens a store is noted.
    Store.set_aside = noted  # type: ignore[method-assign]


def set_aside(folder: Path) -> list[str]:
    """What processes have noted there."""
    file = folder / SET_ASIDE
    return file.read_text().splitlines() if file.exists() else []


def noting_parts(run: BareRun, parts: Path) -> None:
    """From now on the run notes in that file what MLflow would get of its epochs at work."""

    def deliver(part: EpochPart) -> None:
        rows = part_points(part, EVERY).steps
        with parts.open("a") as file:
            file.write(json.dumps([[row.key, row.step, _bits(row)] for row in rows]) + "\n")

    run.session.deliver_part = deliver


def _bits(row: Row) -> str:
    return float(row.value).hex()


def _changed(points: Rows, parts: Path) -> Iterator[str]:
    if not parts.exists():
        return
    for line in parts.read_text().splitlines():
        for key, step, value in json.loads(line):
            if points.get((key, step)) != value:
                yield f"{key} at update {step}"


def differences(
    expected: Mapping[str, Any], actual: Mapping[str, Any], *, lied: bool = False
) -> tuple[str, ...]:
    """In words, each naming its object: what `actual` has otherwise than an unbroken run.

    lied: a disk may have lost what it had confirmed, so that something may have been set aside.
    """
    damaged = () if lied else (f"damaged: {one}" for one in actual["damaged"])
    return (*_differences(expected, actual), *damaged)


def _differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[str]:
    for problem in actual["problems"]:
        yield f"verify: {problem}"
    for what in ("digests", "records"):
        wanted, given = expected[what], actual[what]
        for name in sorted(wanted.keys() | given.keys()):
            if name not in given:
                yield f"{what}: {name} is missing"
            elif name not in wanted:
                yield f"{what}: {name} is one too many"
            elif wanted[name] != given[name]:
                yield f"{what}: {name} is {given[name]}, expected {wanted[name]}"
    missing = set(expected["objects"]) - set(actual["objects"])
    yield from (f"objects: {path} is missing" for path in sorted(missing))
    more = set(actual["objects"]) - set(expected["objects"])
    yield from (f"objects: {path} is one too many" for path in sorted(more))
    if actual["points"] != expected["points"]:
        yield f"points: {actual['points']}, expected {expected['points']}"
    yield from (f"points: {place} comes twice" for place in actual["twice"])
    yield from (f"points: {place} was another one before" for place in actual["changed"])
