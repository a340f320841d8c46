"""Uploads in parts that are not finished: a folder each, a file for each part; no HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from epochal.data.testing.s3.answers import Refusal
from epochal.data.testing.s3.bodies import Body
from epochal.data.testing.s3.files import append_document, read_document
from epochal.data.testing.s3.objects import Objects, StoredObject

MIN_PART_BYTES = 5 << 20  # of each part but the last, as S3 has it
MAX_PARTS = 10_000


@dataclass(frozen=True)
class Upload:
    """begun: seconds since 1970."""

    id: str
    bucket: str
    key: str
    begun: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One that has come. modified: seconds since 1970."""

    number: int
    num_bytes: int
    etag: str
    modified: float


class Uploads:
    """Every method may be called by several threads. Raises Refusal as S3 answers."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self._folder, self._scratch = folder, scratch
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        self._uploads: dict[str, Upload] = {}
        for one in folder.iterdir():
            self._uploads[one.name] = Upload(**json.loads((one / "upload.json").read_text()))

    def of(self, bucket: str) -> list[Upload]:
        """Those of a bucket, by key and then by beginning."""
        found = [one for one in list(self._uploads.values()) if one.bucket == bucket]
        return sorted(found, key=lambda one: (one.key, one.begun, one.id))

    def begin(self, bucket: str, key: str, metadata: Mapping[str, str]) -> Upload:
        """A new one."""
        upload = Upload(os.urandom(16).hex(), bucket, key, time.time(), metadata)
        made = self._scratch / upload.id
        made.mkdir()
        (made / "upload.json").write_text(json.dumps(asdict(upload)))
        made.rename(self._folder / upload.id)
        with self._lock:
            self._uploads[upload.id] = upload
        return upload

    def put_part(self, upload_id: str, key: str, number: int, body: Body) -> Part:
        """One part; it takes the place of an earlier one of its number."""
        if not 1 <= number <= MAX_PARTS:
            raise Refusal(400, "InvalidArgument", f"part number {number}")
        part = Part(number, body.num_bytes, body.md5, time.time())
        append_document(body.path, {"etag": part.etag, "modified": part.modified})
        with self._lock:
            self._find(upload_id, key)
            body.path.replace(self._folder / upload_id / f"{number:05d}")
        return part

    def parts(self, upload_id: str, key: str) -> list[Part]:
        """Those that have come, by number."""
        with self._lock:
            self._find(upload_id, key)
            return [
                Part(number=int(path.name), **read_document(path))
                for path in sorted((self._folder / upload_id).glob("[0-9]*"))
            ]

    def complete(
        self,
        upload_id: str,
        key: str,
        wanted: Sequence[tuple[int, str]],
        objects: Objects,
        *,
        none_match: bool,
    ) -> StoredObject:
        """These parts, (number, ETag), become one object, and the upload ends."""
        with self._lock:
            upload = self._find(upload_id, key)
            path, described = self._joined(upload, wanted)
            objects.put(upload.bucket, path, described, none_match=none_match)
            self._end(upload_id)
        return described

    def abort(self, upload_id: str, key: str) -> None:
        """Drops all of its parts."""
        with self._lock:
            self._find(upload_id, key)
            self._end(upload_id)

    def _joined(
        self, upload: Upload, wanted: Sequence[tuple[int, str]]
    ) -> tuple[Path, StoredObject]:
        numbers = [number for number, _ in wanted]
        if not numbers or numbers != sorted(set(numbers)):
            raise Refusal(400, "InvalidPartOrder")
        etags = hashlib.md5(usedforsecurity=False)
        num_bytes = 0
        path = self._scratch / os.urandom(12).hex()
        try:
            with path.open("wb") as whole:
                for number, etag in wanted:
                    file = self._folder / upload.id / f"{number:05d}"
                    part_bytes = _checked(file, etag, last=number == numbers[-1])
                    _append(file, part_bytes, whole.fileno())
                    etags.update(bytes.fromhex(etag))
                    num_bytes += part_bytes
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        etag = f"{etags.hexdigest()}-{len(wanted)}"
        return path, StoredObject(upload.key, num_bytes, etag, time.time(), upload.metadata)

    def _find(self, upload_id: str, key: str) -> Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise Refusal(404, "NoSuchUpload", upload_id)
        return upload

    def _end(self, upload_id: str) -> None:
        """Its folder leaves under another name: one rename, so that a killed server ends it too."""
        gone = self._scratch / os.urandom(12).hex()
        (self._folder / upload_id).rename(gone)
        del self._uploads[upload_id]
        shutil.rmtree(gone)


def _checked(path: Path, etag: str, *, last: bool) -> int:
    """The size of a part, if it is the one that is meant and not too small."""
    if not path.exists():
        raise Refusal(400, "InvalidPart", f"part {path.name} has not come")
    told = read_document(path)
    if told["etag"] != etag:
        raise Refusal(400, "InvalidPart", f"part {path.name} is another one")
    if told["num_bytes"] < MIN_PART_BYTES and not last:
        raise Refusal(400, "EntityTooSmall", f"part {path.name}")
    return int(told["num_bytes"])


def _append(path: Path, num_bytes: int, target: int) -> None:
    source = os.open(path, os.O_RDONLY)
    try:
        while num_bytes:
            num_bytes -= os.sendfile(target, source, None, num_bytes)
    finally:
        os.close(source)
