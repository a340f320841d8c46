"""A history by the simulator: in a process of its own, forked from one that has imported it all.

What is global to a process (the product's modules that see a virtual clock, generators, the user's
modules) is so of one history. The unbroken end of a config is computed once, by a simulated life
that nothing meets.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.histories.history import Ending, History
from support.histories.judge import differences
from support.histories.project import history_project
from support.simulator.faults import KINDS

FAULTS = dict(KINDS)
"""Place → the kinds of faults that histories can have here."""
MEMORY = Path("/dev/shm")
"""Where files are in memory, if there is such a place; else where temporary files are."""


@dataclass(frozen=True)
class Unbroken:
    """What a run of a config leaves that nothing meets. usual: where → its operations there."""

    left: dict[str, Any]
    usual: dict[str, int]
    trace: str


_unbroken: dict[str, Unbroken] = {}
_warm: list[bool] = []


def ended(history: History) -> Ending:
    """How it ended. Raises RuntimeError where the unbroken run itself does not end well."""
    unbroken = unbroken_of(history)
    return _ending(_forked(history, unbroken.usual), history, unbroken)


def unbroken_of(history: History) -> Unbroken:
    """Of the history's config."""
    name = json.dumps(history.config, sort_keys=True)
    if name not in _unbroken:
        body = _forked(History(0, history.config, ()), {})
        if not body["whole"] or body["left"]["problems"] or body["left"]["twice"]:
            message = f"the unbroken run of {name} does not end well: {body}"
            raise RuntimeError(message)
        _unbroken[name] = Unbroken(body["left"], body["usual"], body["trace"])
    return _unbroken[name]


def _ending(body: dict[str, Any], history: History, unbroken: Unbroken) -> Ending:
    differs: tuple[str, ...] = ()
    if body["whole"]:
        lied = history.lied(len(history.lives))
        differs = differences(unbroken.left, body["left"], lied=lied)
        differs += tuple(_points(unbroken.left, body["left"]))
    reached = (*body["reached"], *(False for _ in history.faults))[: len(history.faults)]
    notes = [*body["notices"], *([body["deadlock"]] if body["deadlock"] else [])]
    return Ending(
        differs=differs,
        whole=body["whole"],
        reached=reached,
        broken=body["broken"],
        lives=body["lives"],
        trace=body["trace"],
        notes=tuple(notes),
    )


def _points(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """What MLflow has otherwise than after an unbroken run; times are no part of it."""
    wanted, given = expected["tracker"], actual["tracker"]
    return [
        f"tracker: {name} is {given.get(name, 'missing')}, expected {wanted.get(name, 'none')}"
        for name in sorted(wanted.keys() | given.keys())
        if wanted.get(name) != given.get(name)
    ]


def _forked(history: History, usual: dict[str, int]) -> dict[str, Any]:
    _warm_up()
    parent = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="epochal-simulated-", dir=parent))
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        code = 1
        try:
            body = _lived(history, folder, usual)
            with os.fdopen(write, "w") as out:
                json.dump(body, out)
            code = 0
        except BaseException:  # noqa: BLE001 - a child must end here, whatever it was
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if os.waitstatus_to_exitcode(status) != 0:
        message = f"the simulator itself failed at {history.dump()}"
        raise RuntimeError(message)
    return json.loads(text)


def _lived(history: History, folder: Path, usual: dict[str, int]) -> dict[str, Any]:
    """In the forked process: the whole history."""
    from support.simulator.lives import Simulation

    os.environ["HOME"] = tempfile.tempdir = str(folder)
    logging.getLogger("epochal").setLevel(logging.ERROR)
    for name in ("model", "images", "own"):
        sys.modules.pop(name, None)
    project = history_project(folder / "project", history.config)
    simulation = Simulation(history, project.config, folder, usual)
    log = os.environ.get("SIMULATOR_LOG")
    if log:
        simulation.scheduler.log = []
    whole = simulation.run()
    left = simulation.what_is_left() if whole else None
    if log:
        Path(log).write_text("\n".join([*simulation.scheduler.log, ""]))
    return {
        "whole": whole,
        "lives": simulation.lives,
        "reached": simulation.reached,
        "broken": simulation.broken,
        "deadlock": simulation.scheduler.deadlock,
        "trace": simulation.scheduler.trace,
        "usual": simulation.counted,
        "left": left,
        "notices": simulation.notices,
    }


def _warm_up() -> None:
    """Imports all and runs once, so that each history need not."""
    if _warm:
        return
    _warm.append(True)
    import mlflow.entities
    import mlflow.exceptions  # noqa: F401 - ahead of its use
    import torch
    from support.histories.draw import drawn_config
    from support.runs.bare_run import BareRun
    from support.simulator import lives  # noqa: F401 - likewise

    torch.set_num_threads(1)
    path = list(sys.path)
    with tempfile.TemporaryDirectory(prefix="epochal-simulated-") as name:
        project = history_project(Path(name) / "project", drawn_config(0))
        BareRun(project.config, store=f"file://{name}/store", loader__workers=0)()
    sys.path[:] = path
