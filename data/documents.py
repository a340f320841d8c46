"""JSON documents that carry their own digest: equal bodies give equal bytes.

Floats keep every digit, unlike in keys, where `epochal.data.hashing.canonical` rounds them.
Opens no files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from epochal.data.errors import CorruptObject
from epochal.data.hashing import bytes_sha256

MAX_DOCUMENT_BYTES = 1 << 24
MAX_DEPTH = 64
_TOO_DEEP = f"a document has at most {MAX_DEPTH} levels"
MIN_BYTES_EACH = 12  # of an object or list, on average: in memory one takes twenty times as many
MIN_COUNTED_BYTES = 1 << 16


def dump_document(body: Mapping[str, Any]) -> bytes:
    """`{"body":…,"sha256":…}` and a newline: equal bodies give equal bytes.

    The digest is of the body's own bytes. Raises TypeError or ValueError for what JSON would not
    give back: keys that are not text, NaN, infinities, other types, more than 64 levels.
    """
    data = _document(_plain(body, depth=1))
    if (most := _most_parts(data)) < _num_parts(data):
        raise ValueError(f"a document of {len(data)} bytes has at most {most} lists and objects")
    return data


def _document(body: Any) -> bytes:
    text = _text(body)
    return f'{{"body":{text},"sha256":"{bytes_sha256(text.encode())}"}}\n'.encode()


def load_document(data: bytes, *, name: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """The body of the document `data`; `name` is for the message.

    Raises CorruptObject unless `data` is, byte for byte, what `dump_document` writes for that body.
    """
    if len(data) > max_bytes:
        raise CorruptObject(f"{name}: {len(data)} bytes, expected at most {max_bytes}")
    if (most := _most_parts(data)) < _num_parts(data):
        raise CorruptObject(f"{name}: more than {most} lists and objects in {len(data)} bytes")
    try:
        document = json.loads(data.decode("ascii"), parse_constant=_no_number)
        body = document.get("body") if isinstance(document, dict) else None
        _check_depth(body, levels=MAX_DEPTH)
        expected = _document(body) if isinstance(body, dict) else None
    except (ValueError, RecursionError) as error:
        raise CorruptObject(f"{name} is no JSON document: {error}") from error
    if not isinstance(body, dict):
        raise CorruptObject(f"{name}: expected an object with a body that is an object, too")
    if expected != data:
        raise CorruptObject(
            f"{name}: its bytes do not have the digest that it names; it was changed or cut after "
            "it was written"
        )
    return body


def _text(body: Any) -> str:
    return json.dumps(
        body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def _num_parts(data: bytes) -> int:
    """At least as many lists and objects as there are, without parsing."""
    return data.count(b"[") + data.count(b"{")


def _most_parts(data: bytes) -> int:
    return max(MIN_COUNTED_BYTES, len(data)) // MIN_BYTES_EACH


def _no_number(text: str) -> float:
    raise ValueError(f"a document cannot hold {text}")


def _check_depth(value: Any, *, levels: int) -> None:
    """Raises ValueError if what JSON has given has more levels than that."""
    if levels == 0:
        raise ValueError(_TOO_DEEP)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        if type(item) in (dict, list):
            _check_depth(item, levels=levels - 1)


def _plain(value: Any, *, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a document cannot hold {value!r}")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a document's keys are text, not {key!r}")
        return {key: _plain(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, depth=depth + 1) for item in value]
    raise TypeError(f"a document cannot hold a {type(value).__name__}: {value!r:.80}")
