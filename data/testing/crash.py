"""What a crash of the machine may leave of a recorded folder, and what must hold of all of it.

    for state in crash_states(recording, MODELS["reordered"]):
        assert not broken_promises(state)
        state.write(folder)                     # and let the next run begin there

Between two syncs a file system may write names and bytes as it likes. Each state is one choice of
what had come to the disk. Knows names and bytes; not what is in a file, nor any owner or time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Literal

from epochal.data.store.backend import TEMPORARY
from epochal.data.testing.recording import (
    ROOT,
    Place,
    Promised,
    Recording,
    Renamed,
    Synced,
    Written,
)

Left = Literal["all", "none", "half", "zeros"]


@dataclass(frozen=True)
class Model:
    """What a file system does with what is not synced.

    in_order: names come to the disk in their order, as a journal has them, and every sync, of
    whatever, takes along all names before it; else each name by itself, and only a sync of its
    folder settles it. left: what may be there of a file's unsynced bytes: `all` of them, `none`
    (the file is empty), `half`, or `zeros` in their place.
    """

    in_order: bool
    left: tuple[Left, ...]


MODELS = {
    "ordered": Model(in_order=True, left=("all", "none")),
    "writeback": Model(in_order=True, left=("all", "none", "half", "zeros")),
    "reordered": Model(in_order=False, left=("all", "none", "half", "zeros")),
}
"""`ordered`: ext4 as it is mounted by default; its blocks are given late, so a file whose name is
there may be empty. `writeback`: ext4 with `data=writeback`, XFS: a name may be there before its
bytes. `reordered`: btrfs and whatever promises no order at all; each state of the others is one of
its states, too."""


@dataclass(frozen=True)
class CrashState:
    """What is there after a crash. point: after so many changes of the recording it came.

    files: path → bytes; nodes: path → the file's node; folders: paths; all below the recorded
    folder.
    """

    recording: Recording
    point: int
    files: Mapping[str, bytes]
    nodes: Mapping[str, int]
    folders: frozenset[str]

    def write(self, folder: Path) -> None:
        """Makes it below `folder`, which is there and empty. Raises OSError."""
        for path in sorted(self.folders):  # a folder before what is in it
            (folder / path).mkdir()
        for path, data in self.files.items():
            (folder / path).write_bytes(data)


def crash_states(
    recording: Recording, model: Model, *, points: Sequence[int] | None = None
) -> Iterator[CrashState]:
    """Every state that a crash may leave, each once; after each change, or at `points` alone.

    What lies in a store's `tmp` is there or not as a whole, with one kind of bytes: with 2 choices
    for each of n unsynced names there are 2^n states, and in `tmp` no name is ever synced. Thus
    for a few writes: a whole run has too many, `drawn_states` takes some.
    """
    seen: set[tuple[frozenset[str], frozenset[tuple[str, int]]]] = set()
    for point in _points(recording) if points is None else points:
        choices = _Choices(recording, model, point)
        for names in choices.all_names():
            tree = choices.tree(names)
            for bytes_of in choices.all_bytes(tree):
                state = choices.state(tree, bytes_of)
                key = (state.folders, frozenset((one, hash(b)) for one, b in state.files.items()))
                if key not in seen:
                    seen.add(key)
                    yield state


def drawn_states(
    recording: Recording, model: Model, *, seed: int, count: int
) -> Iterator[CrashState]:
    """So many states, drawn: the instant, each unsynced name, the bytes of each unsynced file."""
    draw = random.Random(f"crash {seed}")  # noqa: S311 - the same states again
    points = _points(recording)
    for _ in range(count):
        choices = _Choices(recording, model, draw.choice(points))
        tree = choices.tree(choices.drawn_names(draw))
        yield choices.state(tree, {node: draw.choice(model.left) for node in choices.unsynced})


def broken_promises(state: CrashState) -> list[str]:
    """What of the store's word the crash has broken, in words; none: it is kept.

    An object whose `put_new` had returned is there, one that `delete` had removed is not, and
    every object has all of its bytes.
    """
    recording, point = state.recording, state.point
    wrong = []
    for path, allowed in _allowed(recording, point).items():
        node = state.nodes.get(path)
        if node not in allowed:
            wrong.append(
                f"{path}: it was stored, and is not there"
                if node is None
                else f"{path}: what was removed is there"
            )
    for path, data in state.files.items():
        if not _is_temporary(path) and data != recording.bytes_of(state.nodes[path], point):
            wrong.append(f"{path}: not all of its bytes are there, or others")
    return wrong


def promised(recording: Recording, point: int) -> dict[str, set[bytes | None]]:
    """Path → what may be there after so many changes: an object's bytes, None: nothing.

    Of each object that the store has promised to be there or to be gone. For a real disk that was
    cut off there: what `crash_states` makes up, it does.
    """
    return {
        path: {None if node is None else recording.bytes_of(node, point) for node in nodes}
        for path, nodes in _allowed(recording, point).items()
    }


def _points(recording: Recording) -> list[int]:
    """The number of changes after each one that counts for a crash."""
    return list(range(recording.first, len(recording.changes) + 1))


def _is_temporary(path: str) -> bool:
    return TEMPORARY in path.split("/")


@lru_cache(maxsize=2)  # many states have one point
def _allowed(recording: Recording, point: int) -> dict[str, set[int | None]]:
    """Path of a promised object → what may be there: what was promised, or what was done since."""
    allowed: dict[str, set[int | None]] = {}
    paths: dict[Place, str] = {}
    folders = {ROOT: ""}
    for change in recording.changes[:point]:
        if isinstance(change, Promised):
            allowed[change.path] = {change.node}
        elif isinstance(change, Renamed):
            for (parent, name), node in change.entries.items():
                path = f"{folders[parent]}/{name}".lstrip("/") if parent in folders else name
                paths[parent, name] = path
                if node in recording.folders:
                    folders[node] = path
                if path in allowed:
                    allowed[path].add(node)
    return allowed


class _Choices:
    """What is not settled after so many changes, and the states that follow from choosing."""

    def __init__(self, recording: Recording, model: Model, point: int) -> None:
        self._recording = recording
        self._model = model
        self._point = point
        changes = recording.changes[:point]
        self._last_sync = max(
            (at for at, one in enumerate(changes) if isinstance(one, Synced)), default=-1
        )
        self._synced = {one.node: at for at, one in enumerate(changes) if isinstance(one, Synced)}
        self._renamed = {at: one for at, one in enumerate(changes) if isinstance(one, Renamed)}
        self._written = {one.node: at for at, one in enumerate(changes) if isinstance(one, Written)}
        self.pending = [at for at in self._renamed if not self._is_settled(at)]
        self.unsynced = {
            node for node, at in self._written.items() if self._synced.get(node, -1) < at
        }

    def _is_settled(self, at: int) -> bool:
        if self._model.in_order:
            return at < self._last_sync
        # Both names of a move come at once: with the folder of the new one.
        parent = next(iter(self._renamed[at].entries))[0]
        return at < self._synced.get(parent, -1)

    @cached_property
    def _temporary(self) -> set[int]:
        """The folders in `tmp`, and `tmp` itself."""
        inside: set[int] = set()
        for change in self._renamed.values():
            for (parent, name), node in change.entries.items():
                if node in self._recording.folders and (parent in inside or name == TEMPORARY):
                    inside.add(node)
        return inside

    def all_names(self) -> Iterator[set[int]]:
        """Every choice of unsettled names that may be there, by the numbers of their changes."""
        if self._model.in_order:
            for count in range(len(self.pending) + 1):
                yield set(self.pending[:count])
            return
        together = {
            at
            for at in self.pending
            if all(parent in self._temporary for parent, _ in self._renamed[at].entries)
        }
        single = [{at} for at in self.pending if at not in together]
        groups = [*single, together] if together else single
        for chosen in product((True, False), repeat=len(groups)):
            yield set[int]().union(
                *(group for group, taken in zip(groups, chosen, strict=True) if taken)
            )

    def drawn_names(self, draw: random.Random) -> set[int]:
        """One of these choices; in `tmp` too each name by itself."""
        if self._model.in_order:
            return set(self.pending[: draw.randint(0, len(self.pending))])
        share = draw.choice((0.1, 0.5, 0.9))
        return {at for at in self.pending if draw.random() < share}

    def tree(self, names: set[int]) -> dict[str, int]:
        """Path → node of all that is there with these of the unsettled names."""
        inside: dict[int, dict[str, int]] = {}
        unsettled = set(self.pending)
        for at, change in self._renamed.items():
            if at in unsettled and at not in names:
                continue
            for (parent, name), node in change.entries.items():
                if node is None:
                    inside.get(parent, {}).pop(name, None)
                else:
                    inside.setdefault(parent, {})[name] = node
        found: dict[str, int] = {}
        waiting = [("", ROOT)]
        while waiting:
            path, folder = waiting.pop()
            # Once: with the new name of a folder that was moved its old one is gone.
            for name, node in inside.pop(folder, {}).items():
                below = f"{path}/{name}" if path else name
                found[below] = node
                if node in self._recording.folders:
                    waiting.append((below, node))
        return found

    def all_bytes(self, tree: Mapping[str, int]) -> Iterator[dict[int, Left]]:
        """Every choice of what is left of the unsynced files that the tree has."""
        objects = {node for path, node in tree.items() if not _is_temporary(path)}
        there = [node for node in self.unsynced if node in objects]
        rest = [node for node in tree.values() if node in self.unsynced and node not in objects]
        for chosen in product(self._model.left, repeat=len(there) + bool(rest)):
            left = dict(zip(there, chosen, strict=False))
            yield {**left, **dict.fromkeys(rest, chosen[-1])} if rest else left

    def state(self, tree: Mapping[str, int], left: Mapping[int, Left]) -> CrashState:
        """The tree with these bytes in its files."""
        nodes = {path: node for path, node in tree.items() if node not in self._recording.folders}
        files = {}
        for path, node in nodes.items():
            at = self._written.get(node)
            data = b"" if at is None else self._contents(at)
            files[path] = _left(data, left[node]) if node in left else data
        return CrashState(
            self._recording, self._point, files, nodes, frozenset(tree.keys() - nodes.keys())
        )

    def _contents(self, at: int) -> bytes:
        change = self._recording.changes[at]
        assert isinstance(change, Written)
        return self._recording.contents[change.number]


def _left(data: bytes, left: Left) -> bytes:
    if left == "none":
        return b""
    if left == "half":
        return data[: len(data) // 2]
    return bytes(len(data)) if left == "zeros" else data
