"""The body of a request, into a file: its chunks taken apart, its size and checksums compared."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO, Protocol

from epochal.data.testing.s3.answers import Refusal

_PIECE_BYTES = 1 << 20
_LINE_BYTES = 1 << 16
_CHECKSUM = "x-amz-checksum-"
_ABOUT = {"x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"}


@dataclass(frozen=True)
class Body:
    """What came, in a file of its own. md5: as 32 digits. crc32: in base64, where it was sent."""

    path: Path
    num_bytes: int
    md5: str
    crc32: str | None

    def copy(self) -> Body:
        """Another file with the same bytes: whoever stores a body takes its file away."""
        path = self.path.with_name(f"{self.path.name}.{os.urandom(4).hex()}")
        shutil.copyfile(self.path, path)
        return Body(path, self.num_bytes, self.md5, self.crc32)

    def read(self, *, max_bytes: int) -> bytes:
        """All of it. Raises Refusal for more than that."""
        if self.num_bytes > max_bytes:
            raise Refusal(400, "MaxMessageLengthExceeded")
        return self.path.read_bytes()


class _Digest(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def receive(stream: BinaryIO, headers: Message, folder: Path) -> Body:
    """Reads a request's body to its end, and compares what it says of itself.

    Raises Refusal for another size or checksum, and for a checksum that is not computed here
    (CRC32C and CRC64NVME); ConnectionError where the client ends too early.
    """
    path = folder / os.urandom(12).hex()
    try:
        return _received(stream, headers, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _received(stream: BinaryIO, headers: Message, path: Path) -> Body:
    trailers: dict[str, str] = {}
    pieces = _sent(stream, headers)
    if "aws-chunked" in str(headers.get("Content-Encoding") or ""):
        pieces = _unchunked(_Pieces(pieces), trailers)
    md5, crc32 = hashlib.md5(usedforsecurity=False), _Crc32()
    others = {"sha1": hashlib.sha1(usedforsecurity=False), "sha256": hashlib.sha256()}
    named = {name.strip().lower() for name in str(headers.get("x-amz-trailer") or "").split(",")}
    wanted = {
        name.removeprefix(_CHECKSUM)
        for name in {*(header.lower() for header in headers), *named} - _ABOUT
        if name.startswith(_CHECKSUM)
    }
    digests: dict[str, _Digest] = {"crc32": crc32, **others}
    if unknown := wanted - digests.keys():
        for _ in pieces:
            pass
        raise Refusal(501, "NotImplemented", f"a checksum by {', '.join(sorted(unknown))}")
    used = [md5, *(digests[name] for name in sorted(wanted))]
    num_bytes = 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            num_bytes += len(piece)
            for digest in used:
                digest.update(piece)
    decoded = headers.get("x-amz-decoded-content-length")
    if decoded is not None and int(decoded) != num_bytes:
        raise Refusal(400, "IncompleteBody", f"{num_bytes} of {decoded} bytes came")
    given = {
        name: trailers.get(f"{_CHECKSUM}{name}") or headers.get(f"{_CHECKSUM}{name}")
        for name in wanted
    }
    for name, text in given.items():
        if text != _base64(digests[name].digest()):
            raise Refusal(400, "BadDigest", f"the body has another {name}")
    if headers.get("Content-MD5", _base64(md5.digest())) != _base64(md5.digest()):
        raise Refusal(400, "BadDigest", "the body has another MD5")
    return Body(path, num_bytes, md5.hexdigest(), given.get("crc32"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sent(stream: BinaryIO, headers: Message) -> Iterator[bytes]:
    """The bytes as HTTP carries them, in pieces."""
    if "chunked" in str(headers.get("Transfer-Encoding") or "").lower():
        yield from _http_chunks(stream)
        return
    left = int(headers.get("Content-Length") or 0)
    while left:
        piece = stream.read(min(left, _PIECE_BYTES))
        if not piece:
            raise ConnectionError("the client ended within a body")
        left -= len(piece)
        yield piece


def _http_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while size := int(stream.readline(_LINE_BYTES).split(b";")[0] or b"0", 16):
        data = stream.read(size)
        if len(data) < size:
            raise ConnectionError("the client ended within a body")
        yield data
        stream.readline(_LINE_BYTES)
    while stream.readline(_LINE_BYTES).strip():
        pass


class _Pieces:
    """Pieces of bytes, read by lines and by numbers of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ahead = b""

    def _more(self) -> bool:
        piece = next(self._pieces, b"")
        self._ahead += piece
        return bool(piece)

    def line(self) -> bytes:
        while b"\r\n" not in self._ahead and self._more():
            pass
        line, _, self._ahead = self._ahead.partition(b"\r\n")
        return line

    def some(self, num_bytes: int) -> bytes:
        """At least one byte, at most so many. Raises Refusal at the end."""
        if not self._ahead and not self._more():
            raise Refusal(400, "IncompleteBody")
        data, self._ahead = self._ahead[:num_bytes], self._ahead[num_bytes:]
        return data


def _unchunked(body: _Pieces, trailers: dict[str, str]) -> Iterator[bytes]:
    """The bytes of a body in `aws-chunked` form; `trailers` has then what came behind them."""
    while size := int(body.line().split(b";")[0] or b"0", 16):
        while size:
            data = body.some(size)
            size -= len(data)
            yield data
        body.line()
    while line := body.line():
        name, _, value = line.decode().partition(":")
        trailers[name.strip().lower()] = value.strip()
