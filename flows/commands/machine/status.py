"""`epochal status`: what runs on this machine, and where it stands."""

from __future__ import annotations

import os
import time
from typing import Any

from epochal.flows import console
from epochal.flows.commands.options import AsJson
from epochal.flows.servers import ServerHome, is_alive, read_note
from epochal.tasks.running.journal import Attempt, attempts


def status(
    as_json: AsJson = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show what runs here: runs with their epoch, process and links, servers, the worker."""
    living = [one for one in attempts() if one.is_alive]
    servers = [one for _, one in sorted(read_note(ServerHome.current()).items()) if is_alive(one)]
    started = {one.pid: _began_ms(one.pid) for one in servers}
    if as_json:
        console.print_json(
            {
                "runs": [_run(one) for one in living],
                "servers": [
                    {
                        "name": one.name,
                        "url": one.url,
                        "pid": one.pid,
                        "since_ms": started[one.pid],
                        "log": one.log,
                    }
                    for one in servers
                ],
            }
        )
        return
    if living:
        columns = ["run", "at", "pid", "for", "process", "command"]
        rows = [
            [
                str(one.body.get("reference", one.name)),
                place_of(one),
                str(one.pid),
                since(one.body.get("started_ms")),
                _process(one.body),
                str(one.body.get("command", "")),
            ]
            for one in living
        ]
        command = [row.pop() for row in rows]
        console.print_whole(console.text_table(columns[:-1], rows))
        for one, line in zip(living, command, strict=True):
            console.out.print()
            reference = one.body.get("reference", one.name)
            console.out.print(f"{reference}  {line}", whole=True)
            for title, url in {"store": one.body.get("store"), **_links(one)}.items():
                console.out.print(f"  {title:<8} {url}")
            console.out.print(f"  log      {one.log}")
    else:
        console.out.print("no run works here")
    console.out.print()
    if not servers:
        console.out.print("no server runs; `epochal up` starts Prefect's, MLflow's and a worker")
        return
    rows = [[one.name, one.url, str(one.pid), since(started[one.pid])] for one in servers]
    console.print_whole(console.text_table(["server", "address", "pid", "for"], rows))


def place_of(attempt: Attempt) -> str:
    """Where an attempt stands, in a few words: `epoch 3 of 12, update 40 of 120`."""
    body = attempt.body
    if body.get("epoch") is None:
        return str(body.get("doing", ""))
    text = f"epoch {body['epoch']} of {body.get('epochs')}"
    if body.get("update") is not None:
        return f"{text}, update {body['update']} of {body.get('num_updates')}"
    return f"{text}, {str(body.get('doing', '')).partition(' · ')[0]}"


def since(started_ms: Any) -> str:
    """How long ago: `2 h 10 min`."""
    if not isinstance(started_ms, int | float):
        return console.NOTHING
    minutes, seconds = divmod(max(0, int(time.time() - started_ms / 1000)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _run(attempt: Attempt) -> dict[str, Any]:
    body = attempt.body
    known = ("epoch", "epochs", "update", "num_updates", "loss", "doing", "store", "command")
    return {
        "run": attempt.name,
        "reference": body.get("reference"),
        **{name: body.get(name) for name in known},
        "pid": attempt.pid,
        "since_ms": body.get("started_ms"),
        "links": _links(attempt),
        "log": str(attempt.log),
    }


def _links(attempt: Attempt) -> dict[str, str]:
    links = attempt.body.get("links")
    return dict(links) if isinstance(links, dict) else {}


def _process(body: Any) -> str:
    import psutil

    try:
        family = [psutil.Process(body["pid"])]
        family += family[0].children(recursive=True)
        memory = sum(one.memory_info().rss for one in family)
    except psutil.Error:
        return console.NOTHING
    return f"{len(family)} processes, {console.size(memory)}"


def _began_ms(pid: int) -> int | None:
    import psutil

    if pid == os.getpid():
        return None
    try:
        return int(psutil.Process(pid).create_time() * 1000)
    except psutil.Error:
        return None
