"""A file that holds bytes and, behind them, a document that tells of them: both there, or neither.

    the bytes · the document as JSON · the size of the document, 8 bytes, the largest first

So one rename or link makes an object and its metadata visible at once, and a process may be killed
at any instant. Nothing is synced: what survives is the end of the process, not a loss of power.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8


def append_document(path: Path, document: dict[str, Any]) -> None:
    """Ends the file of some bytes with what is to be told of them."""
    text = json.dumps(document, sort_keys=True).encode()
    with path.open("ab") as file:
        file.write(text + len(text).to_bytes(_LENGTH_BYTES, "big"))


def read_document(path: Path) -> dict[str, Any]:
    """What is told of a file's bytes; `num_bytes`: how many. Raises FileNotFoundError."""
    with path.open("rb") as file:
        file.seek(-_LENGTH_BYTES, os.SEEK_END)
        size = int.from_bytes(file.read(_LENGTH_BYTES), "big")
        file.seek(-_LENGTH_BYTES - size, os.SEEK_END)
        num_bytes = file.tell()
        document: dict[str, Any] = json.loads(file.read(size))
    return {**document, "num_bytes": num_bytes}
