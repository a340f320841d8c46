"""`epochal data index`: an index for tar shards, or shards of what a target only iterates over."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from epochal.data.errors import DataError, InputError
from epochal.data.hashing import digest
from epochal.data.indexing.build import INDEX_NAME, write_beside
from epochal.data.indexing.write import Writer
from epochal.data.types import Target, in_key, seed_64
from epochal.engine.randomness import seeded
from epochal.tasks.config.load import load_config
from epochal.tasks.runs.run_sources import data_fields
from epochal.tasks.user_code.targets import call_target

Told = Callable[[int, int | None, str], None]
"""Told how many of how many samples or shards (None: nobody knows) are done, and which."""

_TARGET = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*")


@dataclass(frozen=True)
class Indexed:
    """What is there now. kept: shards that were there before. size: bytes of what was written."""

    index: str
    samples: int
    shards: int
    kept: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Request:
    """What the command was given. samples: at most so many items, None for all."""

    source: str
    field: str = "train_data"
    overrides: Sequence[str] = ()
    args: str | None = None
    out: str | None = None
    samples: int | None = None
    shard_bytes: int = 256 << 20


def index_data(request: Request, *, told: Told) -> Indexed:
    """Does it, and tells how it gets on. Raises InputError."""
    source = request.source
    if _TARGET.fullmatch(source):
        return _from_target(_target(request), Path.cwd(), "SOURCE", request, told)
    if source.endswith((".yaml", ".yml")):
        config = load_config(Path(source), overrides=request.overrides)
        fields = data_fields(config)
        if request.field not in fields:
            raise InputError(
                f"--field {request.field}: expected one of {', '.join(fields)}, which {source} has"
            )
        field = next(one for one in fields if one == request.field)
        return _from_target(fields[field], Path(config.folder), field, request, told)
    for name, given in (("--args", request.args), ("--samples", request.samples)):
        if given is not None:
            raise InputError(
                f"{name}: {source} stands for shards, which have items already; expected a config "
                "or a target as SOURCE"
            )
    found = write_beside(
        source,
        to=request.out,
        name="SOURCE",
        progress=lambda done, count: told(done, count, "shards"),
    )
    return Indexed(index=found[0], samples=found[1], shards=found[2])


def _target(request: Request) -> Target:
    try:
        args: JsonValue = json.loads(request.args or "{}")
    except ValueError:
        args = None
    if not isinstance(args, dict):
        raise InputError(
            f"--args {request.args!r:.100}: expected a JSON object, such as "
            '\'{"split": "train"}\''
        )
    return Target(target=request.source, args=args)


def _from_target(target: Target, folder: Path, field: str, request: Request, told: Told) -> Indexed:
    if request.out is None:
        raise InputError(
            f"--out: say where the shards of {field} are to be written: a folder, or an address "
            "such as s3://bucket/shards"
        )
    identity = {
        "target": target.target,
        "args": in_key(target.args),
        "samples": request.samples,
        "shard_bytes": request.shard_bytes,
    }
    writer = Writer(
        request.out,
        source=digest("index-source", identity),
        name=field,
        shard_bytes=request.shard_bytes,
    )
    with seeded(seed_64("data")):  # what it draws from the global generators is the same each time
        dataset = call_target(target, field=field, folder=folder)
        items = items_of(dataset, field=field)
        count = request.samples if request.samples is not None else _count(dataset)
        written = writer.write(
            islice(items, request.samples), told=lambda done, _: told(done, count, "samples")
        )
    return Indexed(
        index=f"{request.out.rstrip('/')}/{INDEX_NAME}",
        samples=written.samples,
        shards=written.shards,
        kept=written.kept,
        size=written.size,
    )


def items_of(dataset: Any, *, field: str) -> Iterable[Any]:
    """The items of a data set, one after another. Raises DataError for what has none."""
    from torch.utils.data import DataLoader, IterableDataset

    kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    if isinstance(dataset, DataLoader):
        raise DataError(f"{field}: found a DataLoader, which gives batches; return its `dataset`")
    if isinstance(dataset, str | bytes | Mapping):
        raise DataError(f"{field}: found a {kind}; expected something that gives samples")
    if not isinstance(dataset, IterableDataset) and hasattr(dataset, "__getitem__"):
        return _by_position(dataset)
    if not hasattr(dataset, "__iter__"):
        raise DataError(f"{field}: found a {kind}; expected something that can be iterated over")
    return dataset  # type: ignore[no-any-return]  # it has __iter__


def _by_position(dataset: Any) -> Iterator[Any]:
    for position in range(len(dataset)):
        yield dataset[position]


def _count(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001 - a user's __len__; those that only iterate have none
        return None
