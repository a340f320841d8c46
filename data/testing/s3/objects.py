"""The buckets of a server and their objects, each a file; no HTTP."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from epochal.data.testing.s3.answers import Refusal
from epochal.data.testing.s3.files import append_document, read_document


@dataclass(frozen=True)
class StoredObject:
    """What is known of an object. modified: seconds since 1970. crc32: of one PUT that sent it."""

    key: str
    num_bytes: int
    etag: str
    modified: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    crc32: str | None = None


class Objects:
    """Buckets are folders below `folder`; an object's file is named by the sha256 of its key.

    Every method may be called by several threads. Raises Refusal as S3 answers.
    """

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._buckets = {
            bucket.name: {one.key: one for one in map(_described, bucket.iterdir())}
            for bucket in folder.iterdir()
        }

    def make_bucket(self, bucket: str) -> None:
        """Nothing happens if it is there."""
        if not bucket or bucket.startswith((".", "_")) or "/" in bucket:
            raise Refusal(400, "InvalidBucketName", bucket)
        with self._lock:
            (self._folder / bucket).mkdir(exist_ok=True)
            self._buckets.setdefault(bucket, {})

    @property
    def buckets(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._buckets)

    def of(self, bucket: str) -> dict[str, StoredObject]:
        """Key → object of a bucket."""
        try:
            return self._buckets[bucket]
        except KeyError:
            raise Refusal(404, "NoSuchBucket", bucket) from None

    def put(
        self, bucket: str, path: Path, described: StoredObject, *, none_match: bool, match: str = ""
    ) -> None:
        """The file at `path` becomes an object. none_match: only if there is none.

        match: only if the one that is there has this ETag.
        """
        entries = self.of(bucket)
        append_document(path, _document(described))
        target = self._path(bucket, described.key)
        with self._lock:
            if match:
                self._compare(entries.get(described.key), match)
            if none_match:
                try:
                    os.link(path, target)
                except FileExistsError:
                    raise Refusal(412, "PreconditionFailed") from None
                finally:
                    path.unlink()
            else:
                path.replace(target)
            entries[described.key] = described

    def head(self, bucket: str, key: str) -> StoredObject:
        """What is known of it."""
        try:
            return self.of(bucket)[key]
        except KeyError:
            raise Refusal(404, "NoSuchKey", key) from None

    def open(self, bucket: str, key: str) -> tuple[StoredObject, BinaryIO]:
        """It, and its file, which the caller closes; bytes past `num_bytes` are not its own."""
        with self._lock:
            return self.head(bucket, key), self._path(bucket, key).open("rb")

    def delete(self, bucket: str, key: str) -> None:
        """Nothing happens if it is not there."""
        entries = self.of(bucket)
        with self._lock:
            self._path(bucket, key).unlink(missing_ok=True)
            entries.pop(key, None)

    def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        *,
        metadata: Mapping[str, str] | None,
        none_match: bool,
    ) -> StoredObject:
        """Each a bucket and a key. metadata: others than the source's."""
        found, file = self.open(*source)
        path = self._scratch / os.urandom(12).hex()
        with file, path.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        os.truncate(path, found.num_bytes)
        described = StoredObject(
            target[1], found.num_bytes, found.etag, time.time(),
            found.metadata if metadata is None else metadata, found.crc32,
        )  # fmt: skip
        self.put(target[0], path, described, none_match=none_match)
        return described

    def _path(self, bucket: str, key: str) -> Path:
        return self._folder / bucket / hashlib.sha256(key.encode()).hexdigest()

    @staticmethod
    def _compare(found: StoredObject | None, match: str) -> None:
        if found is None:
            raise Refusal(404, "NoSuchKey")
        if found.etag != match:
            raise Refusal(412, "PreconditionFailed")


def _document(described: StoredObject) -> dict[str, object]:
    return {
        "key": described.key,
        "etag": described.etag,
        "modified": described.modified,
        "metadata": dict(described.metadata),
        "crc32": described.crc32,
    }


def _described(path: Path) -> StoredObject:
    return StoredObject(**read_document(path))
