"""The way between a run and a process that joins it: TCP, a secret that both know, small messages.

Neither side sends the secret: each proves that it knows it (HMAC, of Python's `multiprocessing`).
What follows is JSON as to a trainer process of this machine. Nothing is encrypted.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from epochal.tasks.trainer.channel import Channel, Message

TOKEN = "EPOCHAL_TOKEN"  # noqa: S105 - the variable's name
"""The variable that holds the secret."""
LOST_AFTER_S = 30
"""Of silence of the other machine, after which the connection counts as lost."""
_PROBE_EVERY_S = 5
_TRY_EVERY_S = 1.0
_PROVE_WITHIN_S = 10


class Refused(Exception):
    """The other side does not know the secret, or is something else."""


def admitted(connected: socket.socket, token: str) -> Channel:
    """Who has connected, once both sides have proved that they know the secret. Raises Refused."""
    return _proved(connected, token, asks_first=True)


def connected(address: tuple[str, int], token: str, *, within_s: float) -> tuple[Channel, str]:
    """The way to a run, and the address of this machine on it. Raises Refused, OSError."""
    way = socket.create_connection(address, timeout=within_s)
    own = str(way.getsockname()[0])
    return _proved(way, token, asks_first=False), own


def reached(address: tuple[str, int], token: str, *, within_s: float) -> tuple[Channel, str]:
    """As `connected`, tried again while nobody listens there."""
    never, until_s = threading.Event(), time.monotonic() + within_s
    while True:
        try:
            return connected(address, token, within_s=max(1.0, until_s - time.monotonic()))
        except OSError:
            if time.monotonic() + _TRY_EVERY_S > until_s:
                raise
        never.wait(_TRY_EVERY_S)


def shown(address: tuple[Any, Any]) -> str:
    """HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def version() -> str:
    """Of this package: both sides must have the same."""
    return metadata.version("epochal")


def greeting(channel: Channel, *, kind: str, told: Message) -> Message:
    """Says hello, and gives what the run answers. Raises Refused."""
    channel.send({"type": "hello", "kind": kind, "version": version(), **told})
    answer, _ = channel.receive()
    if answer["type"] != "welcome":
        raise Refused(answer["reason"])
    return answer


def _proved(way: socket.socket, token: str, *, asks_first: bool) -> Channel:
    way.settimeout(None)
    _watch(way)
    prove = (deliver_challenge, answer_challenge)
    with _limited(way):
        try:
            with Connection(os.dup(way.fileno())) as connection:
                for one in prove if asks_first else reversed(prove):
                    one(connection, token.encode())
        except (AuthenticationError, AssertionError, EOFError, OSError) as error:
            way.close()
            raise Refused(str(error) or "the connection has ended") from error
    return Channel(way.detach())


def _watch(way: socket.socket) -> None:
    """A machine that is gone, or cannot be reached, ends the connection after a while."""
    way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    way.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _PROBE_EVERY_S),
        ("TCP_KEEPINTVL", _PROBE_EVERY_S),
        ("TCP_KEEPCNT", LOST_AFTER_S // _PROBE_EVERY_S),
        ("TCP_USER_TIMEOUT", LOST_AFTER_S * 1000),
    ):
        if hasattr(socket, name):
            way.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@contextmanager
def _limited(way: socket.socket) -> Iterator[None]:
    """Inside the block each read and write ends after a while. Works for its duplicates too."""
    both = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
    for one in both:
        way.setsockopt(socket.SOL_SOCKET, one, struct.pack("ll", _PROVE_WITHIN_S, 0))
    try:
        yield
    finally:
        if way.fileno() >= 0:
            for one in both:
                way.setsockopt(socket.SOL_SOCKET, one, struct.pack("ll", 0, 0))
