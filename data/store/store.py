"""The store: named objects that appear whole and never change.

The only way to write is `put_new`, which never replaces an object, whatever the storage. Checks
paths, and turns what storage raises into errors that say what to do. Knows nothing of stages, runs
or what the bytes mean.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from epochal.data.errors import BadStore, CorruptObject, PreflightFailed, StoreUnavailable
from epochal.data.hashing import bytes_sha256
from epochal.data.store.addresses import check_path, is_path, join
from epochal.data.store.backend import (
    DAMAGED,
    TEMPORARY,
    Backend,
    NotAnObject,
    R,
    T,
    UnfinishedUpload,
)
from epochal.data.store.failures import advice, cause_of, storage_errors
from epochal.data.store.retry import RetryingBackend, RetryPolicy

MAX_READ_BYTES = 1 << 28
MAX_READS = 4  # of one object whose bytes are wrong, and other ones at each read
PROBE_S = 3600  # older than this an object of `preflight` belongs to nobody any more
_PROBE = re.compile(rf"{TEMPORARY}/preflight-(\d{{1,12}})-[0-9a-f]{{16}}")
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}

logger = logging.getLogger(__name__)


class Store:
    """Objects by relative path: segments of letters, digits, `.`, `_` and `-`.

    Every method raises BadStore for any other path, and StoreUnavailable, naming object and
    cause, if the storage fails. FileNotFoundError: there is no such object. Safe to use from
    several threads.
    """

    def __init__(self, url: str, backend: Backend) -> None:
        self._url = url
        self._backend = backend

    def __repr__(self) -> str:
        return f"Store({self._url!r})"

    @property
    def url(self) -> str:
        """The normalised address."""
        return self._url

    def address(self, path: str) -> str:
        """The address of the object `path`, for people and links."""
        return join(self._url, path)

    def retry_with(self, patience: RetryPolicy) -> None:
        """From now on a storage that does not answer is waited for."""
        self._backend = RetryingBackend(self._backend, patience)

    def put_new(self, path: str, source: bytes | Path) -> None:
        """All bytes of `source` appear at `path`, or none, or FileExistsError.

        A file from a `scratch` folder is handed over: it may be gone afterwards. FileExistsError
        says that some object is there, perhaps this very one if an answer got lost on the way:
        a caller to whom that matters compares.
        """
        check_path(path)
        if isinstance(source, Path) and not source.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such file to put into the store", str(source))
        with self._told("write", path):
            try:
                self._backend.put_new(path, source)
            except FileNotFoundError as error:  # of the place, not of the object
                raise self._unavailable("write", path, error) from error

    def read(self, path: str, *, max_bytes: int = MAX_READ_BYTES) -> bytes:
        """The object's bytes. Raises CorruptObject if there are more than `max_bytes`."""
        with self._told("read", check_path(path)):
            data = self._backend.read(path, max_bytes=max_bytes)
        if len(data) > max_bytes:
            raise CorruptObject(
                f"{self.address(path)} has more than the {max_bytes} bytes that were expected at "
                "most; it was not read"
            )
        return data

    def read_intact(
        self, path: str, load: Callable[[bytes], R], *, max_bytes: int = MAX_READ_BYTES
    ) -> R:
        """What `load` makes of the object's bytes, read once more where it raises CorruptObject.

        A bit may flip between disk and memory. So an object counts as damaged only when two reads
        give the same wrong bytes, and all that the storage has of it: then `load`'s CorruptObject
        is raised. Raises StoreUnavailable if every read gives other wrong bytes, or too few.
        """
        wrong: list[str] = []
        while True:
            data = self.read(path, max_bytes=max_bytes)
            try:
                return load(data)
            except CorruptObject:
                if self._is_damaged(path, bytes_sha256(data), len(data), wrong):
                    raise

    def _is_damaged(self, path: str, digest: str, num_bytes: int, wrong: list[str]) -> bool:
        """Whether these wrong bytes were read before, and are all that is stored; else adds them.

        wrong: digests of what was read before.
        """
        again = digest in wrong
        stored = self.size(path) if again else None
        if again and stored in {None, num_bytes}:
            return True
        wrong.append(digest)
        if len(wrong) == MAX_READS:
            found = "other bytes each time, none of them right"
            if stored is not None:
                found = f"{num_bytes} bytes, and has {stored} by what its storage tells"
            raise StoreUnavailable(
                f"{self.address(path)} was read {MAX_READS} times, and gave {found}: memory, disk "
                "or network is faulty; the object was left as it is, run the same command to go on"
            )
        logger.warning("%s: its bytes are not right; they are read once more", self.address(path))
        with self._told("read", path):
            self._backend.forget(path)
        return False

    def size(self, path: str) -> int | None:
        """Bytes of the object, or None if there is none."""
        with self._told("look at", check_path(path)):
            return self._backend.size(path)

    def listing(self, folder: str = "") -> dict[str, int]:
        """Path → bytes of every object below `folder`, however deep, sorted; absent: empty.

        Shows what other processes wrote a moment ago. The store's own `tmp` is left out, and so
        are files whose name no object can have. If there is an object with the folder's own name
        instead of a folder: that object alone.
        """
        with self._told("list", check_path(folder) if folder else folder):
            sizes = self._backend.listing(folder)
        return {
            path: size
            for path, size in sizes.items()
            if is_path(path) and (folder or path.split("/")[0] != TEMPORARY)
        }

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each item, in order; several at the same time on remote storage."""
        return self._backend.map(function, items)

    def delete(self, path: str) -> None:
        """Removes the object; nothing happens if there is none."""
        with self._told("delete", check_path(path)):
            self._backend.delete(path)

    def set_aside(self, path: str, reason: str) -> str | None:
        """Moves a damaged object to `damaged/<path>.<n>` and returns that path.

        None if the object is gone: another process was faster.
        """
        check_path(path)
        number = 0
        while True:
            target = f"{DAMAGED}/{path}.{number}"
            with self._told("set aside", path):
                try:
                    self._backend.move(path, target)
                except FileExistsError:
                    number += 1
                    continue
                except FileNotFoundError:
                    return None
            logger.info("%s: %s; moved to %s", self.address(path), reason, target)
            return target

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """Uploads in parts below the store that nobody goes on with, sorted; only S3 has such.

        quiet_s: for how long nothing of one must have come, by the storage's clock. Left out are
        those of names that no object can have.
        """
        with self._told("list the unfinished uploads of", ""):
            try:
                uploads = self._backend.unfinished_uploads(quiet_s=quiet_s)
            except FileNotFoundError as error:  # of the place
                raise self._unavailable("list the unfinished uploads of", "", error) from error
        own = (upload for upload in uploads if is_path(upload.path))
        return sorted(own, key=lambda upload: (upload.path, upload.id))

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Drops the upload's parts; nothing happens if it has ended."""
        with self._told("abort an upload of", check_path(upload.path)):
            self._backend.abort_upload(upload)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """A local file with the object's bytes, while the context is open. Read it only.

        A store in a folder gives the object's own file, others download it. Either stays, whoever
        deletes the object meanwhile.
        """
        with ExitStack() as stack:
            with self._told("fetch", check_path(path)):
                local = stack.enter_context(self._backend.fetch(path))
            yield local

    @contextmanager
    def fetch_intact(
        self, path: str, *, digest: Callable[[Path], str], expected: str
    ) -> Iterator[Path]:
        """As `fetch`, if the file's `digest` is `expected`. Reads again as `read_intact` does."""
        wrong: list[str] = []
        while True:
            with self.fetch(path) as local:
                with self._told("read", path):
                    actual, num_bytes = digest(local), local.stat().st_size
                if actual == expected:
                    yield local
                    return
            if self._is_damaged(path, actual, num_bytes, wrong):
                raise CorruptObject(
                    f"{self.address(path)} has the digest {actual}, expected {expected}"
                )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private local folder to write files for `put_new` in; removed at exit.

        Raises StoreUnavailable also if the disk fails or is full while the context is open.
        """
        with ExitStack() as stack:
            with self._told("make a scratch folder for", ""):
                try:
                    folder = stack.enter_context(self._backend.scratch())
                except FileNotFoundError as error:  # of the temporary folder
                    raise self._unavailable("make a scratch folder for", "", error) from error
            try:
                yield folder
            except OSError as error:
                if error.errno in _DISK:
                    raise self._unavailable("write files for", "", error) from error
                raise

    def preflight(self) -> None:
        """Writes, reads, lists and deletes a small object, and old ones that a crash has left.

        Raises PreflightFailed, naming the cause, or BadStore if the storage overwrites what
        exists although it was told not to.
        """
        path = f"{TEMPORARY}/preflight-{int(time.time())}-{os.urandom(8).hex()}"
        data = path.encode()
        try:
            with suppress(FileExistsError):  # of nobody else: the answer to a first try got lost
                self.put_new(path, data)
            try:
                self._preflight_object(path, data)
            finally:
                self.delete(path)
            gone = self.size(path) is None
        except (StoreUnavailable, FileNotFoundError, CorruptObject) as error:
            raise PreflightFailed(f"the store cannot be used: {error}") from error
        if not gone:
            raise PreflightFailed(f"{self.address(path)} is still there after it was deleted")
        if not self._backend.exclusive:
            logger.warning(
                "%s: this kind of storage cannot refuse the second of two simultaneous writers; "
                "let only one process at a time write to it",
                self._url,
            )

    def _preflight_object(self, path: str, data: bytes) -> None:
        try:
            self.put_new(path, b"another")
        except FileExistsError:
            pass
        else:
            raise BadStore(
                f"{self._url} overwrites an object although it was told to create it (on S3: it "
                "ignores `If-None-Match`); two runs could mix there: name another store"
            )

        def compare(read: bytes) -> None:
            if read != data:
                raise CorruptObject(
                    f"{self.address(path)} reads back other bytes than were written"
                )

        self.read_intact(path, compare, max_bytes=len(data))
        listed = self.listing(TEMPORARY)
        if path not in listed:
            raise PreflightFailed(f"{self.address(path)} was written but is not listed")
        for other in listed:  # what a process left that was killed between its write and delete
            left = _PROBE.fullmatch(other)
            if left is not None and time.time() - int(left[1]) > PROBE_S:
                self.delete(other)

    @contextmanager
    def _told(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        except NotAnObject as error:
            raise CorruptObject(f"cannot {doing} {error.filename}: {error.strerror}") from error
        except storage_errors() as error:
            raise self._unavailable(doing, path, error) from error

    def _unavailable(self, doing: str, path: str, error: Exception) -> StoreUnavailable:
        place = self.address(path) if path else self._url
        return StoreUnavailable(
            f"cannot {doing} {place}: {cause_of(error)}; {advice(error)}, "
            "then run the same command to go on"
        )
