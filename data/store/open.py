"""Opens a store: from its address to the backend of that kind of storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from epochal.data.errors import BadStore
from epochal.data.store.addresses import (
    local_folder,
    normalise_store,
    scheme_of,
)
from epochal.data.store.backend import Backend
from epochal.data.store.failures import cause_of
from epochal.data.store.store import Store


def backend_at(address: str) -> Backend:
    """The backend for a normalised address. Opens no connection and creates nothing."""
    scheme = scheme_of(address)
    if scheme == "file":
        from epochal.data.store.local import LocalBackend

        return LocalBackend(local_folder(address))
    if scheme == "s3":
        from epochal.data.store.s3 import S3Backend

        return S3Backend(address)
    from epochal.data.store.remote import MemoryBackend, ObjectBackend

    return MemoryBackend(address) if scheme == "memory" else ObjectBackend(address)


def open_store(url: str, *, folder: Path | None = None) -> Store:
    """The store at `url`; `./x` and `../x` are relative to `folder`, else to the working folder.

    Touches nothing and opens no connection. Raises BadStore.
    """
    return _opened(normalise_store(url, folder=folder or Path.cwd()), backend_at)


def open_unchanged(url: str, *, folder: Path) -> Store:
    """The store at `url`, which stays as it is: what is written to it goes to `folder`.

    Raises BadStore.
    """
    from epochal.data.store.local import LocalBackend
    from epochal.data.store.overlay import Overlay

    above = LocalBackend(folder)
    return _opened(
        normalise_store(url, folder=Path.cwd()),
        lambda address: Overlay(backend_at(address), above),
    )


def _opened(address: str, backend: Callable[[str], Backend]) -> Store:
    try:
        return Store(address, backend(address))
    except (ImportError, ValueError, TypeError) as error:  # a missing package, or a bad option
        raise BadStore(f"store {address} cannot be opened: {cause_of(error)}") from error


def files_of(store: Store) -> tuple[Any, str]:
    """The store's storage as pyarrow reads it, a file system of its own, and the folder there.

    For whoever reads many files in their parts. Nothing is checked on this way.
    """
    from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

    from epochal.data.store.remote import ObjectBackend

    backend = backend_at(store.url)
    if isinstance(backend, ObjectBackend):
        files, folder = backend.place
        return PyFileSystem(FSSpecHandler(files)), folder
    return LocalFileSystem(), str(local_folder(store.url))
