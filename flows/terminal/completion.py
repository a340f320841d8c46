"""What the shell may complete: configs, runs, stores. Reads folders of this machine, nothing else.

A shell waits for it at each TAB: no store is opened, and none elsewhere is asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CONFIGS = (".yaml", ".yml", ".json")
STORES = Path(".epochal") / "stores.json"
"""Below the home: the stores that runs here have used, newest first (`tasks/runs/find_run.py`)."""
LOCAL = "file://"
MOST = 200


def configs(incomplete: str) -> list[str]:
    """Files that may be configs, and the folders on the way to them."""
    return [path for path in _entries(incomplete) if path.endswith((*CONFIGS, "/"))]


def runs(incomplete: str) -> list[str]:
    """Names of runs in the stores that a bare name is looked up in, `STORE/NAME`, and configs."""
    names = dict.fromkeys(
        name for store in _stores() for name in _names(store) if name.startswith(incomplete)
    )
    place, slash, _ = incomplete.rpartition("/")
    there = [f"{place}/{name}" for name in _names(Path(place))] if slash else []
    return [*names, *(one for one in there if one.startswith(incomplete)), *configs(incomplete)]


def stores(incomplete: str) -> list[str]:
    """Stores that were used here, and folders."""
    known = [str(store) for store in _stores()]
    folders = [path for path in _entries(incomplete) if path.endswith((*CONFIGS, "/"))]
    return [*(one for one in known if one.startswith(incomplete)), *folders]


def _entries(incomplete: str) -> list[str]:
    """What is in the folder that the text names so far, folders with a slash behind them."""
    place, _, start = incomplete.rpartition("/")
    folder = Path(f"{place}/" if incomplete.startswith("/") and not place else place).expanduser()
    prefix = incomplete[: len(incomplete) - len(start)]
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".") and not start.startswith(".")
            if entry.name.startswith(start) and not hidden:
                found.append(f"{prefix}{entry.name}{'/' if entry.is_dir() else ''}")
    return sorted(found)[:MOST]


def _stores() -> Iterator[Path]:
    """Where a bare name is looked up, as far as that is on this machine."""
    if given := os.environ.get("EPOCHAL_STORE"):
        yield from _local(given)
        return
    yield Path("store")
    with suppress(OSError, ValueError, RuntimeError):  # no list, no home: nothing to complete
        known = json.loads((Path.home() / STORES).read_text(encoding="utf-8"))
        for url in known if isinstance(known, list) else []:
            yield from _local(str(url))


def _local(url: str) -> Iterator[Path]:
    if url.startswith(LOCAL) or "://" not in url:
        yield Path(url.removeprefix(LOCAL))


def _names(store: Path) -> list[str]:
    with suppress(OSError):
        return sorted(one.name for one in os.scandir(store / "runs") if one.is_dir())[:MOST]
    return []
