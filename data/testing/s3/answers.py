"""What a server of S3 answers: a status, headers, and bytes, XML or a piece of a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

Content = str | int | Iterable[tuple[str, "Content"]]
"""What an element of XML holds: a text, a number, or others, each (name, content)."""


class Refusal(Exception):
    """A request that S3 answers with an error. status: of HTTP. code: S3's name of the error."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code = status, code


@dataclass(frozen=True)
class FilePiece:
    """`num_bytes` of an open file from `start` on. Whoever has sent it closes the file."""

    file: BinaryIO
    start: int
    num_bytes: int


@dataclass(frozen=True)
class Answer:
    """length: what `Content-Length` says where the body has another size: HEAD's is empty."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | FilePiece = b""
    length: int | None = None

    @property
    def body_bytes(self) -> int:
        """The size of the body."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.num_bytes


def document(name: str, content: Content) -> Answer:
    """A document of XML whose root has this name."""
    root = f'<{name} xmlns="{NAMESPACE}">{_text(content)}</{name}>'
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{root}'
    return Answer(200, {"Content-Type": "application/xml"}, text.encode())


def refused(refusal: Refusal) -> Answer:
    """S3's form of an error."""
    text = (
        f"<Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message></Error>"
    ).encode()
    return Answer(refusal.status, {"Content-Type": "application/xml"}, text)


def time_text(seconds: float) -> str:
    """As documents have it: `2026-01-31T12:00:00.000Z`."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def key_text(key: str, *, encoded: bool) -> str:
    """A key in a listing, percent-encoded where the client has asked for it."""
    return quote(key) if encoded else key


def _text(content: Content) -> str:
    if isinstance(content, str | int):
        return escape(str(content))
    return "".join(f"<{name}>{_text(inner)}</{name}>" for name, inner in content)
