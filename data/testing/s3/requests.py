"""A request as S3 means it: what is asked for, of which object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from urllib.parse import parse_qsl, unquote, urlsplit

from epochal.data.testing.s3.answers import Refusal

_OTHERS = {"acl", "tagging", "versioning", "versions", "versionId", "policy", "lifecycle", "cors"}
METADATA = "x-amz-meta-"


@dataclass(frozen=True)
class Request:
    """kind: one of `faults.KINDS`. query: its parameters. headers: HTTP's, whatever their case."""

    kind: str
    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Message

    def header(self, name: str) -> str:
        """Its value; an empty text without one."""
        return str(self.headers.get(name) or "")

    @property
    def metadata(self) -> dict[str, str]:
        """The user's metadata that it brings along, by their lower-case names."""
        return {
            name.lower().removeprefix(METADATA): value
            for name, value in self.headers.items()
            if name.lower().startswith(METADATA)
        }


def request_of(method: str, path: str, headers: Message) -> Request:
    """Raises Refusal for what this server does not know."""
    split = urlsplit(path)
    query = dict(parse_qsl(split.query, keep_blank_values=True))
    bucket, _, key = unquote(split.path).removeprefix("/").partition("/")
    kind = _kind(method, bucket, key, query, headers)
    if kind is None or _OTHERS & query.keys():
        raise Refusal(501, "NotImplemented", f"{method} {path}: this server does not know it")
    return Request(kind, method, bucket, key, query, headers)


def _kind(
    method: str, bucket: str, key: str, query: Mapping[str, str], headers: Message
) -> str | None:
    if not bucket:
        return "buckets" if method == "GET" else None
    if not key:
        return _of_bucket(method, query)
    if "uploadId" in query:
        copies = method == "PUT" and "x-amz-copy-source" in headers
        steps = {"PUT": "part", "POST": "complete", "DELETE": "abort", "GET": "parts"}
        return None if copies else steps.get(method)
    if method == "PUT":
        return "copy" if "x-amz-copy-source" in headers else "put"
    if method == "POST":
        return "create" if "uploads" in query else None
    return {"GET": "get", "HEAD": "head", "DELETE": "delete"}.get(method)


def _of_bucket(method: str, query: Mapping[str, str]) -> str | None:
    if method == "POST":
        return "batch_delete" if "delete" in query else None
    if method == "GET" and "uploads" in query:
        return "uploads"
    if method == "GET" and query.get("list-type") == "2":
        return "list"
    asks = method in {"PUT", "HEAD"} or (method == "GET" and "location" in query)
    return "bucket" if asks else None
