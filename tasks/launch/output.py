"""What trainer processes print, printed by this one as it comes, and told line by line."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TextIO

_CHUNK_BYTES = 1 << 16
_LONGEST_LINE = 1 << 12  # of what is kept of a line, and told


def to_nobody(line: str) -> None:
    """Drops the line."""


def print_all(
    pipe: IO[bytes],
    name: str,
    label: str = "",
    printed: Callable[[str], None] = to_nobody,
) -> None:
    """Prints what comes through the pipe to this process's output, as it comes.

    printed: told each line. With a label it waits for whole lines, and begins each with that. A
    line that is not ended is ended here: what this process prints begins on one of its own.
    """
    decoder, chunk = codecs.getincrementaldecoder("utf-8")(errors="replace"), b"\n"
    rest = b""
    while more := os.read(pipe.fileno(), _CHUNK_BYTES):
        *lines, rest = (rest + more).split(b"\n")
        shown = [label + _last_of(line) for line in lines]
        chunk = more
        if label:
            chunk = "".join(f"{line}\n" for line in shown).encode()
        if chunk:
            print_chunk(chunk, name, decoder)
        for line in shown:
            printed(line)
        rest = rest[-_LONGEST_LINE:]
    if rest:
        printed(label + _last_of(rest))
        if label:
            chunk = f"{label}{_last_of(rest)}".encode()
            print_chunk(chunk, name, decoder)
    if chunk and not chunk.endswith(b"\n"):
        print_chunk(b"\n", name, decoder)
    pipe.close()


def _last_of(line: bytes) -> str:
    """What a terminal shows of a line that a progress bar has written again and again."""
    text = line.decode(errors="replace").rstrip("\r")
    return text.rpartition("\r")[2][:_LONGEST_LINE]


def print_chunk(chunk: bytes, name: str, decoder: codecs.IncrementalDecoder) -> None:
    """Prints it to an output of this process, by its name."""
    stream: TextIO = getattr(sys, name)
    with suppress(OSError, ValueError):  # nobody reads it any more
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            stream.buffer.write(chunk)
            stream.buffer.flush()
        else:
            text = decoder.decode(chunk)
            stream.write(text)
            if text.endswith("\n"):  # a progress bar's stream would end the line, a bar by \r too
                stream.flush()
