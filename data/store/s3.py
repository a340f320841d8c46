"""A store on S3: one conditional request puts an object, or completes its upload in parts.

An answer may be lost, late or given twice, and then the next try of a request finds what an earlier
one has made. So each object carries a mark of the call that wrote it: after any answer that leaves
it open, the object itself is looked at, and the write has succeeded if the mark is its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from fsspec.config import conf

from epochal.data.hashing import Checksum, file_checksum
from epochal.data.store.backend import UnfinishedUpload
from epochal.data.store.failures import error_code, is_transient, storage_errors
from epochal.data.store.remote import ObjectBackend
from epochal.data.store.retry import tried

PART_BYTES = 16 << 20
MAX_PARTS = 10_000  # S3's limit; a larger object goes up in larger parts
NUM_PARTS_AT_ONCE = 10  # of one upload; so many are in memory
NUM_UPLOADS = 5  # of one object whose upload was ended by somebody else
NUM_CONNECTIONS = 256
MARK = "epochal-write"  # in the object's user metadata
_EXISTS = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
_ENDED = {"NoSuchUpload", "404", *_CONFLICT}  # S3 wants the whole upload again after a conflict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Write:
    """One object to be put. mark: of this call, and of a later one with the same bytes."""

    key: str
    source: bytes | Path
    size: int
    mark: str

    @contextmanager
    def reader(self) -> Iterator[_Reader]:
        """Gives any piece of the bytes, to several threads."""
        if isinstance(self.source, bytes):
            yield _Reader(self.source)
            return
        descriptor = os.open(self.source, os.O_RDONLY)
        try:
            yield _Reader(descriptor)
        finally:
            os.close(descriptor)


class _Reader:
    def __init__(self, source: bytes | int) -> None:
        self._source = source

    def __call__(self, start: int, num_bytes: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[start : start + num_bytes]
        pieces = []
        while num_bytes and (piece := os.pread(self._source, num_bytes, start)):
            pieces.append(piece)
            start, num_bytes = start + len(piece), num_bytes - len(piece)
        return b"".join(pieces)


class S3Backend(ObjectBackend):
    """A bucket, or a prefix in one."""

    def __init__(self, address: str) -> None:
        super().__init__(address, **s3_options())
        self._files.retries = 1  # `tried` does it
        self._bucket, _, prefix = self._root.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._unsure: dict[str, tuple[str, str]] = {}

    def _call(self, method: str, **arguments: Any) -> Any:
        return tried(lambda: self._files.call_s3(method, Bucket=self._bucket, **arguments))

    def put_new(self, path: str, source: bytes | Path) -> None:
        """One conditional request, or an upload in parts of which the last request is conditional.

        FileExistsError: the object is there and another call wrote it. After any other error the
        object may be there, or appear later; the next call with the same bytes knows it as its own.
        """
        before, checksum = self._unsure.get(path, ("", ""))
        mark = before if before and _checksum(source) == checksum else os.urandom(16).hex()
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        write = _Write(f"{self._prefix}{path}", source, size, mark)
        try:
            self._put(write)
        except FileExistsError:
            raise
        except storage_errors():
            self._unsure[path] = (mark, _checksum(source))
            raise
        self._unsure.pop(path, None)

    def _put(self, write: _Write) -> None:
        for left in reversed(range(NUM_UPLOADS)):
            try:
                if write.size < 2 * PART_BYTES:
                    self._put_whole(write)
                else:
                    self._put_in_parts(write)
            except _UploadEndedError as error:
                if not left:
                    raise error.cause from None
            else:
                return

    def _put_whole(self, write: _Write) -> None:
        with write.reader() as read:
            body = read(0, write.size)
        metadata = {MARK: write.mark}
        try:
            self._call("put_object", Key=write.key, Body=body, IfNoneMatch="*", Metadata=metadata)
        except storage_errors() as error:
            if not self._has_succeeded(write, error):
                raise

    def _put_in_parts(self, write: _Write) -> None:
        created = self._call("create_multipart_upload", Key=write.key, Metadata={MARK: write.mark})
        upload = {"Key": write.key, "UploadId": created["UploadId"]}
        try:
            parts = self._send_parts(write, upload)
            try:
                self._call(
                    "complete_multipart_upload",
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                    **upload,
                )
            except storage_errors() as error:
                if not self._has_succeeded(write, error):
                    raise
        except BaseException as error:
            with suppress(*storage_errors()):  # else it is left to `gc`
                self._call("abort_multipart_upload", **upload)
            if not isinstance(error, OSError) or isinstance(error, FileExistsError):
                raise
            if error_code(error) in _ENDED:
                raise _UploadEndedError(error) from error
            raise

    def _send_parts(self, write: _Write, upload: dict[str, str]) -> list[dict[str, Any]]:
        part_bytes = max(PART_BYTES, -(-write.size // MAX_PARTS))

        def send(number: int) -> dict[str, Any]:
            body = read((number - 1) * part_bytes, part_bytes)
            sent = self._call("upload_part", PartNumber=number, Body=body, **upload)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        numbers = range(1, -(-write.size // part_bytes) + 1)
        with write.reader() as read, ThreadPoolExecutor(NUM_PARTS_AT_ONCE) as pool:
            return list(pool.map(send, numbers))

    def _has_succeeded(self, write: _Write, error: Exception) -> bool:
        """Whether the object is there, whole and by this write, although the last answer failed.

        Raises FileExistsError if somebody else's is there.
        """
        code = error_code(error)
        exists = isinstance(error, FileExistsError) or code in _EXISTS
        if not (exists or code in _ENDED or is_transient(error)):
            return False  # refused: nothing was done
        try:
            found = self._call("head_object", Key=write.key)
        except FileNotFoundError:
            if exists:  # it was deleted in between
                raise FileExistsError(write.key) from error
            return False
        except storage_errors() as looking:
            if exists:
                raise looking from error
            return False
        if found.get("Metadata", {}).get(MARK) == write.mark:
            return bool(found["ContentLength"] == write.size)
        raise FileExistsError(write.key) from error

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """By the storage's own clock. Two kinds of requests: one listing, and one for each upload.

        An upload of which a part has arrived lately is running, however long ago it began.
        """
        begun = []
        markers: dict[str, str] = {}
        while True:
            page = self._call("list_multipart_uploads", Prefix=self._prefix, **markers)
            now = _time_of(page)
            begun += [
                upload
                for upload in page.get("Uploads", [])
                if (now - upload["Initiated"]).total_seconds() >= quiet_s
            ]
            if not page.get("IsTruncated"):
                break
            markers = {"KeyMarker": page["NextKeyMarker"]}
            if "NextUploadIdMarker" in page:
                markers["UploadIdMarker"] = page["NextUploadIdMarker"]
        seen = self.map(self._parts_of, begun)
        return [upload for upload in seen if upload is not None and upload.quiet_s >= quiet_s]

    def _parts_of(self, begun: dict[str, Any]) -> UnfinishedUpload | None:
        num_bytes, newest = 0, begun["Initiated"]
        marker: dict[str, int] = {}
        while True:
            try:
                page = self._call(
                    "list_parts", Key=begun["Key"], UploadId=begun["UploadId"], **marker
                )
            except FileNotFoundError:
                return None  # it has ended meanwhile
            for part in page.get("Parts", []):
                num_bytes += part["Size"]
                newest = max(newest, part["LastModified"])
            if not page.get("IsTruncated"):
                break
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}
        return UnfinishedUpload(
            path=begun["Key"].removeprefix(self._prefix),
            id=begun["UploadId"],
            bytes=num_bytes,
            quiet_s=(_time_of(page) - newest).total_seconds(),
        )

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Drops its parts; nothing happens if it has ended."""
        with suppress(FileNotFoundError):
            self._call(
                "abort_multipart_upload", Key=f"{self._prefix}{upload.path}", UploadId=upload.id
            )


class _UploadEndedError(Exception):
    """Somebody else has ended an upload, or S3 asks for the whole of it once more."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _checksum(source: bytes | Path) -> str:
    if isinstance(source, Path):
        return file_checksum(source)
    checksum = Checksum()
    checksum.update(source)
    return checksum.hexdigest()


def _time_of(answer: dict[str, Any]) -> datetime:
    """The storage's clock: this machine's may be wrong, and an age must not be."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return datetime.now(UTC) if date is None else parsedate_to_datetime(date)


def s3_options() -> dict[str, Any]:
    """What s3fs is opened with, the user's own configuration included."""
    # botocore's own retries pause by Python's global generator, and aiohttp shuffles by it who
    # gets a free connection: a training may draw from it in the same process. So both have no
    # occasion. With these timeouts a missing endpoint is an error after some seconds instead of a
    # minute; those of the user's own configuration win.
    limits = {"connect_timeout": 3, "read_timeout": 30}
    own = dict(conf.get("s3", {}).get("config_kwargs", {}))
    always = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        "max_pool_connections": NUM_CONNECTIONS,
    }
    return {"config_kwargs": limits | own | always}
