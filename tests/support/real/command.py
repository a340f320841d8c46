"""The real command at work, as it is seen from outside: its processes and how far it is."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.real.machine import Machine
from support.runs.command import alive, command_line, descendants, trainer_of

WORKER = "spawn_main"
GONE_S = 30.0
"""After its command has ended, so long may a process of it still live."""


class RealCommand:
    """`epochal train CONFIG` on a machine. number: of its life, for the names of its files.

    processes: that share each update.
    """

    def __init__(
        self, machine: Machine, config: Path, number: str, variables: dict, processes: int
    ) -> None:
        self.machine = machine
        self.steps = machine.folder / f"steps-{number}"
        self.out, self.errors = (machine.folder / f"{name}-{number}.txt" for name in ("out", "err"))
        self.seen: set[int] = set()
        command = [
            *(sys.executable, "-m", "epochal.flows.cli", "train", str(config), "--json"),
            *("--set", f"launch.processes={processes}"),
        ]
        with self.out.open("w") as out, self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*machine.prefix, *command], cwd=config.parent, stdout=out, stderr=errors,
                env={
                    **os.environ, "EPOCHAL_PICTURES": "here", **variables, **machine.variables,
                    "STEPS_FILE": str(self.steps),
                },
            )  # fmt: skip
        self.began = time.monotonic()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def micro_steps(self) -> int:
        """So many this life has made, those that are tried before the start among them."""
        return self.steps.stat().st_size if self.steps.exists() else 0

    def look(self) -> None:
        """Notes the processes that it has now: none of them may be left behind."""
        self.seen |= set(descendants(self.process.pid))

    def pids(self, whom: str) -> list[int]:
        """Of `command`, `trainer`, `worker` (one of the loader's) or `all`; none if it has none."""
        pid = self.process.pid
        trainer = trainer_of(pid)
        workers = descendants(trainer) if trainer is not None else []
        return {
            "command": [pid],
            "trainer": [trainer] if trainer is not None else [],
            "worker": [one for one in workers if WORKER in command_line(one)][:1],
            "all": [pid, *descendants(pid)],
        }[whom]

    def signal(self, number: int, whom: str) -> bool:
        """Whether there was somebody to send it to."""
        pids = self.pids(whom)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return bool(pids)

    def left(self) -> list[str]:
        """Command lines of its processes that live on after its end."""
        deadline = time.monotonic() + GONE_S
        while time.monotonic() < deadline and any(map(alive, self.seen)):
            time.sleep(0.1)
        return [command_line(pid)[:200] for pid in self.seen if alive(pid)]

    def end(self) -> None:
        """Ends all of it: nobody waits for it any longer."""
        if self.runs:
            self.look()
            self.signal(signal.SIGKILL, "all")
            self.process.wait()
        for pid in filter(alive, self.seen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def result(self) -> dict:
        """What `--json` printed of a run that has come to its end."""
        return json.loads(self.out.read_text().splitlines()[-1])
