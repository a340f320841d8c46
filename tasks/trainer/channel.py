"""Messages between the flow's process and its trainer: small JSON, sometimes with bytes behind.

Tensors never travel here: they lie in the buffer that both processes see.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

Message = dict[str, Any]
_BYTES = "bytes"
LOST_CHANNEL = 76
"""Exit code of a trainer whose own descriptors somebody else has closed: EX_PROTOCOL."""


class Channel:
    """One end. Any thread may send; one receives.

    Raises EOFError or ConnectionError where nobody is at the other end, another OSError where this
    one was closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = Connection(descriptor)
        self._socket = os.fstat(descriptor)
        self._sending = threading.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN | select.POLLHUP)

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._connection.fileno()

    def send(self, message: Message, data: bytes | None = None) -> None:
        """Sends a message, with bytes where they are given."""
        body = message if data is None else {**message, _BYTES: True}
        with self._sending:
            self._check()
            self._connection.send_bytes(json.dumps(body).encode())
            if data is not None:
                self._connection.send_bytes(data)

    def receive(self) -> tuple[Message, bytes | None]:
        """The next message, once it is there."""
        message: Message = json.loads(self._connection.recv_bytes())
        return message, self._connection.recv_bytes() if message.pop(_BYTES, False) else None

    def has_message(self) -> bool:
        """Whether `receive` would return at once, or raise."""
        return bool(self._poll.poll(0))

    def receive_no_more(self) -> None:
        """Once what has come is received there is an end. From any thread."""
        with suppress(OSError):  # it is closed
            descriptor = os.dup(self._connection.fileno())
            with socket.socket(fileno=descriptor) as same:
                same.shutdown(socket.SHUT_RD)

    def _check(self) -> None:
        """Whoever closes what is not theirs may have a file of their own under the number since."""
        if not os.path.samestat(os.fstat(self._connection.fileno()), self._socket):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def close(self) -> None:
        """Ends it: the other side reads an end."""
        self._connection.close()
