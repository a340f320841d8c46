"""How much of a run's wall time a person sees nothing move: measured in a real terminal, by tmux.

    python benchmarks/silence.py CONFIG --code /old/.types --code /new/.types --tries 3
    python benchmarks/silence.py CONFIG --width 60 --keep /tmp/screens

A terminal of tmux runs `epochal train CONFIG`, each time into a new store; its screen is looked at
ten times a second. It stands still where nothing on it changed for more than a second: a spinner,
a bar and a clock are a sign, a blinking cursor is none. With `--code` given several times the
tries are interleaved. Servers are those of the environment (`epochal up` before).
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

LOOK_EVERY_S = 0.1
STILL_S = 1.0
"""A screen that changes at least this often is none that stands still."""
PASSED = ("HOME", "PATH", "PREFECT", "EPOCHAL", "MLFLOW")
"""Beginnings of the names of variables that the command is given."""


@dataclass
class Watched:
    """A command's time in the terminal. still: stretches without a change, and the last line."""

    wall_s: float = 0.0
    code: str = ""
    still: list[tuple[float, float, str]] = field(default_factory=list)
    screens: list[tuple[float, str]] = field(default_factory=list)

    @property
    def silent_s(self) -> float:
        """Seconds in which the screen stood still for more than a second."""
        return sum(end - start for start, end, _ in self.still)


def tmux(*arguments: str) -> str:
    """What tmux prints."""
    program = shutil.which("tmux") or "tmux"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def watch(command: str, *, width: int, height: int, folder: Path) -> Watched:
    """Runs a command in a terminal of that size, until it has ended."""
    session, ended = f"silence-{uuid.uuid4().hex[:8]}", folder / f"ended-{uuid.uuid4().hex}"
    found = Watched()
    size = ("-x", str(width), "-y", str(height))
    # tmux's server has an environment of its own, of whoever started it.
    own = [f"-e{name}={value}" for name, value in os.environ.items() if name.startswith(PASSED)]
    script = f"{command}; echo $? > {shlex.quote(str(ended))}; exec cat"
    started = time.monotonic()
    tmux("new-session", "-d", "-s", session, *size, *own, "bash", "-c", script)
    try:
        last, since = "", 0.0
        while True:
            is_over = ended.is_file() and ended.read_text().endswith("\n")
            now = time.monotonic() - started
            screen = tmux("capture-pane", "-p", "-t", session).rstrip()
            if screen != last or is_over:
                if now - since > STILL_S:
                    found.still.append((since, now, last.rpartition("\n")[2]))
                last, since = screen, now
                found.screens.append((now, screen))
            if is_over:
                break
            time.sleep(LOOK_EVERY_S)
        found.wall_s, found.code = now, ended.read_text().strip()
    finally:
        tmux("kill-session", "-t", session)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--code", action="append", help="a folder of PYTHONPATH; may be repeated")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--width", type=int, default=80)
    parser.add_argument("--height", type=int, default=50)
    parser.add_argument("--keep", type=Path, help="a folder for the screens that were seen")
    given = parser.parse_args()
    for number in range(given.tries):
        for code in given.code or [os.environ.get("PYTHONPATH", "")]:
            folder = Path(tempfile.mkdtemp(prefix="silence-"))
            sets = [f"--set={one}" for one in [f"store={folder}/store", *given.sets]]
            program = [sys.executable, "-P", "-m", "epochal.flows.cli"]
            command = shlex.join([*program, "train", str(given.config), *sets])
            found = watch(
                f"PYTHONPATH={shlex.quote(code)} {command}",
                width=given.width,
                height=given.height,
                folder=folder,
            )
            share = found.silent_s / found.wall_s
            print(
                f"try {number}  {code or 'as installed'}  exit {found.code}  "
                f"{found.wall_s:.1f} s, still for {found.silent_s:.1f} s: {share:.0%}"
            )
            for start, end, line in found.still:
                print(f"    {start:6.1f} to {end:6.1f} s  {line.strip()[: given.width]}")
            if given.keep is not None:
                given.keep.mkdir(parents=True, exist_ok=True)
                text = "\n".join(f"--- {at:.1f} s\n{screen}" for at, screen in found.screens)
                (given.keep / f"{number}-{Path(code).parent.name or 'own'}.txt").write_text(text)
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
