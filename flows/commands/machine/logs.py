"""`epochal logs`: what an attempt at a run has said, and what its trainers have printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from epochal.data.documents import load_document
from epochal.data.errors import CorruptObject, EpochalError, NotFound
from epochal.data.store.store import Store
from epochal.flows import console
from epochal.flows.commands.options import AsJson, OfConfig, RunName, StoreOption
from epochal.flows.terminal.style import QUIET
from epochal.tasks.running.journal import Attempt, attempts
from epochal.tasks.runs.find_run import find_run, is_config

LOOK_EVERY_S = 0.5
MAX_ATTEMPT_BYTES = 1 << 20
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Go on with what comes, until the attempt ends.")
]
Number = Annotated[
    int,
    typer.Option(
        "--attempt", metavar="N", min=1, help="Which attempt, counted from the newest, which is 1."
    ),
]
Tail = Annotated[
    int | None,
    typer.Option("--tail", metavar="N", min=1, show_default=False, help="The last N lines alone."),
]


def logs(
    run: RunName,
    follow: Follow = False,  # noqa: FBT002 - typer's way of a flag
    attempt: Number = 1,
    tail: Tail = None,
    overrides: OfConfig = None,
    store: StoreOption = None,
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Print what a run has said and its code has printed, attempt by attempt.

    Logs lie on the machine where the run worked; of attempts elsewhere it is said where.
    """
    name, reference, opened = _named(run, overrides or (), store)
    here = [one for one in attempts(name) if _is_of(one, reference, opened)]
    if as_json:
        console.print_json(
            {
                "run": name,
                "attempts": [
                    {**one.body, "log": str(one.log), "alive": one.is_alive} for one in here
                ],
                "elsewhere": attempts_elsewhere(opened, name, here),
            }
        )
        return
    if len(here) < attempt:
        raise NotFound(_nothing(name, here, attempt, attempts_elsewhere(opened, name, here)))
    chosen = here[attempt - 1]
    for other in here[:6] if len(here) > 1 and attempt == 1 and tail is None else ():
        console.err.print(console.line((_heading(other, here.index(other) + 1), QUIET)))
    for line in _lines(chosen, follow=follow, tail=tail):
        console.out.print(line, whole=True)


def _named(run: str, overrides: Sequence[str], store: str | None) -> tuple[str, str | None, Any]:
    """The run's name, its generation where one is named, and its store where that is known.

    A run that has not planned anything yet is in no store, and may have said why.
    """
    plain = not is_config(run) and "/" not in run and "@" not in run and store is None
    if plain and attempts(run):
        try:
            return run, None, find_run(run).store
        except EpochalError:
            return run, None, None
    try:
        found = find_run(run, store=store, overrides=overrides)
    except NotFound:
        if not is_config(run):
            raise
        from epochal.tasks.config.load import load_config

        return load_config(run, overrides=overrides).name, None, None
    named = found.plan.reference if "@" in run else None
    return found.plan.run, named, found.store


def _is_of(attempt: Attempt, reference: str | None, store: Store | None) -> bool:
    place = attempt.body.get("store")
    same = store is None or not str(place).startswith(("file:", "/")) or place == store.url
    return same and reference in {None, attempt.body.get("reference")}


def _heading(attempt: Attempt, number: int) -> str:
    began = datetime.fromtimestamp(attempt.body["started_ms"] / 1000).astimezone()
    state = "works" if attempt.is_alive else attempt.body.get("doing", "ended")
    if "ended_ms" not in attempt.body and not attempt.is_alive:
        state = "ended without a word (killed, or the machine went down)"
    return f"attempt {number}  {began:%Y-%m-%d %H:%M:%S}  pid {attempt.pid}  {state}"


def _lines(attempt: Attempt, *, follow: bool, tail: int | None) -> Iterator[str]:
    """The lines of the log; with `follow` those that come until the attempt ends."""
    try:
        file = attempt.log.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise NotFound(f"{attempt.log}: cannot be read: {error.strerror}") from error
    with file:
        whole = file.read().splitlines()
        yield from whole if tail is None else whole[-tail:]
        part = ""
        while follow:
            # Asked before the read: what is written before the end is read after it.
            alive = _again(attempt).is_alive
            part += file.read()
            *lines, part = part.split("\n")
            yield from lines
            if not alive:
                break
            time.sleep(LOOK_EVERY_S)  # a file tells nobody that it grew


def _again(attempt: Attempt) -> Attempt:
    """The attempt as its note tells it now."""
    try:
        body = json.loads(attempt.log.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return attempt
    return Attempt(attempt.name, attempt.log, body)


def attempts_elsewhere(
    store: Store | None, name: str, here: Sequence[Attempt], *, at_most: int = 20
) -> list[dict[str, Any]]:
    """The attempts that the store knows of, and this machine has no log of, newest first."""
    if store is None:
        return []
    folder = f"runs/{name}/attempts"
    known = {one.pid for one in here}
    found = []
    for path in sorted(store.listing(folder), reverse=True)[:at_most]:
        try:
            body = load_document(store.read(path, max_bytes=MAX_ATTEMPT_BYTES), name=path)
        except (CorruptObject, FileNotFoundError):
            continue  # `epochal verify` names it
        if body.get("pid") not in known and isinstance(body.get("started_ms"), int):
            wanted = ("started_ms", "host", "pid", "folder", "plan")
            found.append({one: body.get(one) for one in wanted})
    return found


def _nothing(
    name: str, here: Sequence[Attempt], number: int, elsewhere: Sequence[dict[str, Any]]
) -> str:
    if here:
        return f"--attempt {number}: run {name} has {len(here)} attempts with a log here"
    if not elsewhere:
        return (
            f"run {name}: no attempt at it has left a log here ({Path.home() / '.epochal/logs'}), "
            "and its store knows of none: nothing was computed yet, or before logs were kept"
        )
    last = elsewhere[0]
    began = datetime.fromtimestamp(last["started_ms"] / 1000).astimezone()
    return (
        f"run {name}: no log of it lies here. Its last attempt was on {last['host']} (pid "
        f"{last['pid']}, {began:%Y-%m-%d %H:%M}), in {last['folder']}: `epochal logs {name}` "
        "there; Prefect's log of the run has its notes, and up to 1,000 lines of what was printed"
    )
