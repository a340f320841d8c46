"""Listings of large local folders, remembered on the local disk, so that a second start is quick.

One is used while all its folders have the times and inodes that they had, which change with every
name in them, and a thousand of its files their sizes and times. A file that is written over in
place changes no folder: whoever reads it sees another size, and calls `forget`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from epochal.data.errors import DataError
from epochal.data.files.listing import FolderState, Listing, Names, list_files, state_of
from epochal.data.files.local_cache import recall, remember
from epochal.data.files.storage import local_path
from epochal.data.hashing import digest

VERSION = 1
_KIND = "listings"
MIN_FILES = 50_000  # fewer are listed in a tenth of a second
NUM_CHECKED = 1000  # files that are looked at again: 2 ms
SETTLED_NS = 2_000_000_000  # a folder that changed just before may change again in the same tick
_FOLDERS = pa.schema(
    [
        ("folder", pa.large_binary()),
        ("files", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("inode", pa.uint64()),
        ("device", pa.uint64()),
    ]
)
_FILES = pa.schema([("name", pa.large_binary()), ("size", pa.int64()), ("mtime_ns", pa.int64())])


def open_listing(root: str, *, extensions: Sequence[str], in_root: bool = True) -> Listing:
    """`list_files`, or what is remembered of it. Raises DataError, as that does."""
    local = local_path(root)
    if local is None:
        return list_files(root, extensions=extensions, in_root=in_root)
    key = digest("listing", [VERSION, str(local), list(extensions), in_root])
    listing = _remembered(local, recall(_KIND, key))
    if listing is None:
        listing = list_files(root, extensions=extensions, in_root=in_root)
    listing.remembered_as = key
    if listing.known_sizes_N is None:
        listing.when_looked_at = partial(_remember, key=key)
    return listing


def forget(listing: Listing) -> None:
    """Drops what is remembered of it: some file is not as it was listed."""
    if listing.remembered_as is not None:
        remember(_KIND, listing.remembered_as, b"")


def _remember(listing: Listing, key: str) -> None:
    states = listing.states
    if states is None or len(listing) < MIN_FILES:
        return
    newest_ns = max(max(state.mtime_ns, state.ctime_ns) for state in states)
    try:
        settled = newest_ns <= listing.listed_ns - SETTLED_NS and _states_now(listing) == states
    except OSError:
        return  # a folder is gone: whoever reads its files will tell
    if settled:
        remember(_KIND, key, _dumped(listing, states))


def _states_now(listing: Listing) -> list[FolderState]:
    start = os.fsencode(listing.root)
    return [state_of(os.path.join(start, folder)) for folder in listing.names.folders]  # noqa: PTH118 - bytes


def _dumped(listing: Listing, states: Sequence[FolderState]) -> memoryview:
    names = listing.names
    offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int64), names.ends_N]))
    base = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(names), [None, offsets, pa.py_buffer(names.base)]
    )
    folders = pa.record_batch(
        [
            pa.array(names.folders, pa.large_binary()),
            pa.array(np.diff(names.first_G1)),
            pa.array([state.mtime_ns for state in states], pa.int64()),
            pa.array([state.ctime_ns for state in states], pa.int64()),
            pa.array([state.inode for state in states], pa.uint64()),
            pa.array([state.device for state in states], pa.uint64()),
        ],
        schema=_FOLDERS,
    )
    files = pa.record_batch(
        [base, pa.array(listing.sizes_N), pa.array(listing.stamps_N)], schema=_FILES
    )
    sink = pa.BufferOutputStream()
    for batch in (folders, files):
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
    return memoryview(sink.getvalue())


def _remembered(root: Path, data: bytes | None) -> Listing | None:
    listed_ns = time.time_ns()
    if not data:
        return None
    source = pa.BufferReader(data)
    folders, files = (
        pa.ipc.open_stream(source).read_all().combine_chunks().to_batches()[0] for _ in range(2)
    )
    if folders.schema != _FOLDERS or files.schema != _FILES:
        return None
    columns = {name: folders.column(name).to_pylist() for name in _FOLDERS.names}
    states = [
        FolderState(*state)
        for state in zip(
            *(columns[name] for name in ("mtime_ns", "ctime_ns", "inode", "device")), strict=True
        )
    ]
    _, offsets, base = files.column("name").buffers()
    names = Names(
        folders=columns["folder"],
        first_G1=np.append(0, np.cumsum(np.array(columns["files"], dtype=np.int64))),
        base=b"" if base is None else memoryview(base),
        ends_N=np.frombuffer(offsets, dtype=np.int64, count=len(files) + 1)[1:],
    )
    listing = Listing(
        str(root),
        names,
        states=states,
        listed_ns=listed_ns,
        sizes_and_stamps=(files.column("size").to_numpy(), files.column("mtime_ns").to_numpy()),
    )
    try:
        same = _states_now(listing) == states and _is_as_listed(listing)
    except OSError:
        return None
    return listing if same else None


def _is_as_listed(listing: Listing) -> bool:
    start = os.fsencode(listing.root)
    spread = np.linspace(0, len(listing) - 1, min(len(listing), NUM_CHECKED)).astype(np.int64)
    for position in spread.tolist():
        status = os.stat(os.path.join(start, listing.names[position]))  # noqa: PTH116, PTH118 - bytes
        told = (int(listing.sizes_N[position]), int(listing.stamps_N[position]))
        if (status.st_size, status.st_mtime_ns) != told:
            return False
    return True


def changed_since(listing: Listing, position: int, found: int) -> DataError:
    """To be raised where a file has other bytes than were listed."""
    return DataError(
        f"{listing.root}: {listing.text(position)!r} has {found} bytes, and had "
        f"{int(listing.sizes_N[position])} when the folder was listed; expected files that stay "
        "as they are while they are used; run the same command again: it lists them anew"
    )
