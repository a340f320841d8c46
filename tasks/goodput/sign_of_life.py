"""The last sign of life of a process that computes a stage: how far it had come when it was killed.

    ~/.epochal/alive/<digest of store and run>.json     one line, written over about once a second

A stage's commits say how much work they hold; the sign says how much had been done. The difference
is what a kill has cost. It is a file of this machine (or of a home that several share), since an
object store has nothing that could be written over.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from epochal.data.hashing import digest
from epochal.data.stage_store.records import is_sha256
from epochal.tasks.private_files import private_folder

EVERY_S = 1.0
"""Between two signs; so much of what was lost may be missing in the sum."""
MAX_COMMITS = 3
_BYTES = 512
_LONGEST_NAME = 64
_MOST_SECONDS, _MOST_TRIES = 1e10, 1 << 31


@dataclass(frozen=True)
class Sign:
    """key: of the stage at work. seconds: spent on it so far, in all tries, as far as is known.

    commit_seconds: those of them for the cause `commit`. commits: names of the last commits inside
    the stage that the work stands on; the newest may not be durable yet. resumed, unknown_losses:
    as in `Totals`, of all tries so far.
    """

    key: str
    seconds: float
    commit_seconds: float = 0.0
    commits: tuple[str, ...] = ()
    resumed: int = 0
    unknown_losses: int = 0


class SignOfLife:
    """The file of one run. Where it cannot be written, nothing is known and nothing is told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @classmethod
    def of_run(cls, store: str, name: str) -> SignOfLife:
        """That of the run `name` in the store at the address `store`."""
        return cls(Path.home() / ".epochal" / "alive" / f"{digest('alive', [store, name])}.json")

    def read(self) -> Sign | None:
        """The last sign, or None if there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, LookupError, RecursionError):
            with self._path.open("rb") as file:
                body = json.loads(file.read(_BYTES))
            key, commits = body["key"], body["commits"]
            spent = body["seconds"], body["commit_seconds"]
            counts = body["resumed"], body["unknown_losses"]
            if (
                is_sha256(key)
                and all(type(one) in {int, float} and 0 <= one <= _MOST_SECONDS for one in spent)
                and isinstance(commits, list)
                and len(commits) <= MAX_COMMITS
                and all(isinstance(one, str) and len(one) <= _LONGEST_NAME for one in commits)
                and all(type(one) is int and 0 <= one <= _MOST_TRIES for one in counts)
            ):
                return Sign(key, float(spent[0]), float(spent[1]), tuple(commits), *counts)
        return None

    def write(self, sign: Sign) -> None:
        """Puts `sign` in the place of the one before."""
        with suppress(OSError):  # a full disk or a home of others ends no training
            if self._file is None:
                private_folder(self._path.parent)
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
            os.pwrite(self._file, json.dumps(asdict(sign)).encode().ljust(_BYTES), 0)

    def end(self) -> None:
        """Deletes the file: nothing is at work."""
        with suppress(OSError):
            if self._file is not None:
                os.close(self._file)
            self._file = None
            self._path.unlink()
