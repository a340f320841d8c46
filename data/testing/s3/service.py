"""What each kind of request does; no HTTP, no faults."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from epochal.data.testing.s3.answers import (
    Answer,
    Content,
    FilePiece,
    Refusal,
    document,
    key_text,
    time_text,
)
from epochal.data.testing.s3.bodies import Body
from epochal.data.testing.s3.listing import listed, uploads_listed
from epochal.data.testing.s3.objects import Objects, StoredObject
from epochal.data.testing.s3.requests import METADATA, Request
from epochal.data.testing.s3.uploads import Uploads

MAX_KEYS = 1000
MAX_DOCUMENT_BYTES = 4 << 20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class Service:
    """The buckets, objects and unfinished uploads below a folder. `scratch`: for bodies."""

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "scratch"
        self.objects = Objects(folder / "buckets", self.scratch)
        self.uploads = Uploads(folder / "uploads", self.scratch)
        self._answers: dict[str, Callable[[Request, Body], Answer]] = {
            "buckets": self._buckets, "bucket": self._bucket, "put": self._put,
            "create": self._create, "part": self._part, "complete": self._complete,
            "abort": self._abort, "get": self._get, "head": self._head, "list": self._list,
            "delete": self._delete, "batch_delete": self._batch_delete, "copy": self._copy,
            "uploads": self._uploads, "parts": self._parts,
        }  # fmt: skip

    def answer(self, request: Request, body: Body) -> Answer:
        """Does it; the body's file is gone then. Raises Refusal as S3 answers, OSError."""
        try:
            return self._answers[request.kind](request, body)
        finally:
            body.path.unlink(missing_ok=True)

    def _buckets(self, *_: object) -> Answer:
        named: list[tuple[str, Content]] = [
            ("Bucket", [("Name", name), ("CreationDate", time_text(0))])
            for name in self.objects.buckets
        ]
        return document("ListAllMyBucketsResult", [("Buckets", named)])

    def _bucket(self, request: Request, _: Body) -> Answer:
        if request.method == "PUT":
            self.objects.make_bucket(request.bucket)
            return Answer(200, {"Location": f"/{request.bucket}"})
        self.objects.of(request.bucket)
        return document("LocationConstraint", "") if request.method == "GET" else Answer()

    def _put(self, request: Request, body: Body) -> Answer:
        described = StoredObject(
            request.key, body.num_bytes, body.md5, time.time(), request.metadata, body.crc32
        )
        self.objects.put(
            request.bucket, body.path, described,
            none_match=_none_match(request), match=request.header("If-Match").strip('"'),
        )  # fmt: skip
        crc32 = {} if body.crc32 is None else {"x-amz-checksum-crc32": body.crc32}
        return Answer(200, {"ETag": _etag(body.md5), **crc32})

    def _create(self, request: Request, _: Body) -> Answer:
        self.objects.of(request.bucket)
        upload = self.uploads.begin(request.bucket, request.key, request.metadata)
        return document(
            "InitiateMultipartUploadResult",
            [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload.id)],
        )

    def _part(self, request: Request, body: Body) -> Answer:
        number = _number(request, "partNumber", 0)
        part = self.uploads.put_part(request.query["uploadId"], request.key, number, body)
        crc32 = {} if body.crc32 is None else {"x-amz-checksum-crc32": body.crc32}
        return Answer(200, {"ETag": _etag(part.etag), **crc32})

    def _complete(self, request: Request, body: Body) -> Answer:
        wanted = [
            (int(_inner(part, "PartNumber")), _inner(part, "ETag").strip('"'))
            for part in _elements(body, "Part")
        ]
        done = self.uploads.complete(
            request.query["uploadId"], request.key, wanted, self.objects,
            none_match=_none_match(request),
        )  # fmt: skip
        return document(
            "CompleteMultipartUploadResult",
            [("Bucket", request.bucket), ("Key", done.key), ("ETag", _etag(done.etag))],
        )

    def _abort(self, request: Request, _: Body) -> Answer:
        self.uploads.abort(request.query["uploadId"], request.key)
        return Answer(204)

    def _head(self, request: Request, _: Body) -> Answer:
        found = self.objects.head(request.bucket, request.key)
        _matched(request, found)
        return Answer(200, _headers(request, found), length=found.num_bytes)

    def _get(self, request: Request, _: Body) -> Answer:
        found, file = self.objects.open(request.bucket, request.key)
        try:
            _matched(request, found)
            first, past = _piece(request.header("Range"), found.num_bytes)
        except Refusal:
            file.close()
            raise
        piece = FilePiece(file, first, past - first)
        if not request.header("Range"):
            return Answer(200, _headers(request, found), piece)
        headers = _headers(request, found)
        headers.pop("x-amz-checksum-crc32", None)  # it is that of all bytes
        place = f"bytes {first}-{past - 1}/{found.num_bytes}"
        return Answer(206, headers | {"Content-Range": place}, piece)

    def _list(self, request: Request, _: Body) -> Answer:
        query = request.query
        num_keys = min(_number(request, "max-keys", MAX_KEYS), MAX_KEYS)
        return listed(
            request.bucket, self.objects.of(request.bucket), num_keys=num_keys,
            prefix=query.get("prefix", ""), delimiter=query.get("delimiter", ""),
            after=query.get("start-after", ""), token=query.get("continuation-token", ""),
            encoded=query.get("encoding-type") == "url",
        )  # fmt: skip

    def _delete(self, request: Request, _: Body) -> Answer:
        self.objects.delete(request.bucket, request.key)
        return Answer(204)

    def _batch_delete(self, request: Request, body: Body) -> Answer:
        keys = [_inner(one, "Key") for one in _elements(body, "Object")]
        for key in keys:
            self.objects.delete(request.bucket, key)
        deleted: list[tuple[str, Content]] = [("Deleted", [("Key", key)]) for key in keys]
        return document("DeleteResult", deleted)

    def _copy(self, request: Request, _: Body) -> Answer:
        source = unquote(request.header("x-amz-copy-source")).removeprefix("/")
        bucket, _slash, key = source.partition("/")
        replaces = request.header("x-amz-metadata-directive").upper() == "REPLACE"
        done = self.objects.copy(
            (bucket, key), (request.bucket, request.key),
            metadata=request.metadata if replaces else None, none_match=_none_match(request),
        )  # fmt: skip
        told: Content = [("ETag", _etag(done.etag)), ("LastModified", time_text(done.modified))]
        return document("CopyObjectResult", told)

    def _uploads(self, request: Request, _: Body) -> Answer:
        query = request.query
        self.objects.of(request.bucket)
        return uploads_listed(
            request.bucket, self.uploads.of(request.bucket), prefix=query.get("prefix", ""),
            after=(query.get("key-marker", ""), query.get("upload-id-marker", "")),
            num_uploads=min(_number(request, "max-uploads", MAX_KEYS), MAX_KEYS),
            encoded=query.get("encoding-type") == "url",
        )  # fmt: skip

    def _parts(self, request: Request, _: Body) -> Answer:
        query = request.query
        after = _number(request, "part-number-marker", 0)
        num_parts = min(_number(request, "max-parts", MAX_KEYS), MAX_KEYS)
        left = [
            part
            for part in self.uploads.parts(query["uploadId"], request.key)
            if part.number > after
        ]
        parts = left[:num_parts]
        told: list[tuple[str, Content]] = [
            ("Part", [
                ("PartNumber", part.number), ("Size", part.num_bytes), ("ETag", _etag(part.etag)),
                ("LastModified", time_text(part.modified)),
            ])
            for part in parts
        ]  # fmt: skip
        return document("ListPartsResult", [
            ("Bucket", request.bucket), ("Key", key_text(request.key, encoded=False)),
            ("UploadId", query["uploadId"]),
            ("IsTruncated", "true" if len(left) > len(parts) else "false"),
            ("NextPartNumberMarker", parts[-1].number if parts else after), *told,
        ])  # fmt: skip


def _etag(text: str) -> str:
    return f'"{text}"'


def _none_match(request: Request) -> bool:
    text = request.header("If-None-Match")
    if text not in {"", "*"}:
        raise Refusal(501, "NotImplemented", f"If-None-Match: {text}")
    return text == "*"


def _matched(request: Request, found: StoredObject) -> None:
    match = request.header("If-Match").strip('"')
    if match and match != found.etag:
        raise Refusal(412, "PreconditionFailed")


def _headers(request: Request, found: StoredObject) -> dict[str, str]:
    asked = request.header("x-amz-checksum-mode").upper() == "ENABLED"
    crc32 = {"x-amz-checksum-crc32": found.crc32} if asked and found.crc32 else {}
    return {
        "ETag": _etag(found.etag),
        "Last-Modified": formatdate(found.modified, usegmt=True),
        "Content-Type": "binary/octet-stream",
        "Accept-Ranges": "bytes",
        **crc32,
        **{f"{METADATA}{name}": value for name, value in found.metadata.items()},
    }


def _piece(text: str, num_bytes: int) -> tuple[int, int]:
    """The first byte, and the one past the last."""
    found = _RANGE.fullmatch(text)
    if found is None or not (found[1] or found[2]):
        return 0, num_bytes
    if not found[1]:  # so many of the last
        return max(0, num_bytes - int(found[2])), num_bytes
    first = int(found[1])
    past = min(int(found[2]) + 1 if found[2] else num_bytes, num_bytes)
    if first >= num_bytes:
        raise Refusal(416, "InvalidRange")
    return first, past


def _number(request: Request, name: str, usual: int) -> int:
    text = request.query.get(name, "")
    if text and not text.isdecimal():
        raise Refusal(400, "InvalidArgument", f"{name}={text}")
    return int(text) if text else usual


def _elements(body: Body, name: str) -> list[ET.Element]:
    """All elements of this name in the document that a request brings."""
    text = body.read(max_bytes=MAX_DOCUMENT_BYTES)
    try:
        root = ET.fromstring(text)  # noqa: S314 - a test's own client; the size is bounded
    except ET.ParseError as error:
        raise Refusal(400, "MalformedXML", str(error)) from None
    return [one for one in root.iter() if one.tag.rpartition("}")[2] == name]


def _inner(element: ET.Element, name: str) -> str:
    for one in element:
        if one.tag.rpartition("}")[2] == name:
            return one.text or ""
    raise Refusal(400, "MalformedXML", f"{name} is missing")
