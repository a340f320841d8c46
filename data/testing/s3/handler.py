"""HTTP: requests in, answers out, and the faults between them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast

from epochal.data.testing.s3.answers import Answer, FilePiece, Refusal, refused
from epochal.data.testing.s3.bodies import Body, receive
from epochal.data.testing.s3.faults import RequestFault, RequestPlan
from epochal.data.testing.s3.requests import Request, request_of
from epochal.data.testing.s3.service import Service

CONTROL = "/_faults"
"""GET: the plan and its counts. PUT: another plan. No bucket has such a name."""

LAST_COUNTS = "last_counts.json"
"""What a server had counted that a fault has ended, in the folder of its data."""

_PIECE_BYTES = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends a reset


class _NoAnswerError(Exception):
    """The connection ends here, with a reset or in the usual way."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class FaultyServer(ThreadingHTTPServer):
    """A service on a port, behind a plan. Each connection has a thread."""

    daemon_threads = True
    request_queue_size = 256
    allow_reuse_port = True  # whoever keeps the port for a restart has bound it too

    def __init__(self, address: tuple[str, int], service: Service, plan: RequestPlan) -> None:
        super().__init__(address, _Handler)
        self.service, self.plan = service, plan
        self.ending = threading.Event()
        self.flips = itertools.count()

    def server_close(self) -> None:
        """Whoever waits in a fault waits no longer."""
        self.ending.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that leave are no news to a server that loses their answers."""

    def die(self) -> None:
        """As SIGKILL from outside, but for its counts: they are left in a file."""
        with suppress(OSError):  # a disk that may not be written keeps no counts
            (self.service.scratch.parent / LAST_COUNTS).write_text(json.dumps(self.plan.document()))
        os.kill(os.getpid(), signal.SIGKILL)

    def later(self, seconds: float, request: Request, body: Body) -> None:
        """Does it after some time, whoever still wants to know."""

        def work() -> None:
            self.ending.wait(seconds)
            try:
                self.service.answer(request, body)
            except (Refusal, OSError):
                return  # nobody listens to what it says

        threading.Thread(target=work, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Nothing: the plan counts."""

    def do_GET(self) -> None:
        """Any method: S3's requests differ by more than that."""
        try:
            if self.path == CONTROL:
                self._control()
            else:
                self._serve()
        except _NoAnswerError as end:
            self.close_connection = True
            if end.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _control(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(size)
        if self.command == "PUT":
            try:
                self.server.plan.replace(_faults(json.loads(text)))
            except (TypeError, ValueError) as error:
                self._send(refused(Refusal(400, "InvalidArgument", str(error))))
                return
        told = json.dumps(self.server.plan.document()).encode()
        self._send(Answer(200, {"Content-Type": "application/json"}, told))

    def _serve(self) -> None:
        service = self.server.service
        try:
            request = request_of(self.command, self.path, self.headers)
            body = receive(cast("BinaryIO", self.rfile), self.headers, service.scratch)
        except Refusal as refusal:
            self.close_connection = True  # a body may still be on its way
            self._send(refused(refusal))
            return
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self.close_connection = True
            self._send(_internal(error))
            return
        fault = self.server.plan.next(request.kind, request.key)
        if fault is None:
            self._send(self._done(request, body))
        else:
            self._fail(fault, request, body)

    def _done(self, request: Request, body: Body) -> Answer:
        try:
            return self.server.service.answer(request, body)
        except Refusal as refusal:
            return refused(refusal)
        except ConnectionError:
            raise
        except OSError as error:  # a disk that is full, or may not be written
            return _internal(error)

    def _fail(self, fault: RequestFault, request: Request, body: Body) -> None:
        """Does what the fault has of the request, and answers as far as that goes."""
        if not self._begins(fault, request, body):
            return
        how = fault.how
        if how == "doubled":
            _close(self._done(request, body.copy()))
        answer = self._done(request, body)
        if how == "kill_after":
            self.server.die()
        if how == "lost":
            _close(answer)
            raise _NoAnswerError
        flipped = self._flipped(fault, answer) if how == "flip" else None
        self._send(answer, cut=how == "cut", flipped=flipped)
        if how == "cut":
            raise _NoAnswerError

    def _flipped(self, fault: RequestFault, answer: Answer) -> int | None:
        """The byte of an object to change, another one each time; None: there is none to change."""
        if not isinstance(answer.body, FilePiece) or not answer.body_bytes:
            self.server.plan.missed(fault)
            return None
        drawn = random.Random(f"{fault.seed}/{next(self.server.flips)}")  # noqa: S311 - no secret
        return drawn.randrange(answer.body_bytes)

    def _begins(self, fault: RequestFault, request: Request, body: Body) -> bool:
        """Whether the request is done now; else what is said instead has been said."""
        how = fault.how
        if how == "kill":
            self.server.die()
        if how in {"slow", "hang"}:
            self.server.ending.wait(fault.seconds)
        if how == "late":
            self.server.later(fault.seconds, request, body)
            self._send(refused(Refusal(503, "SlowDown", "as planned")))
            return False
        if how in {"reset", "hang"} or fault.error is not None:
            body.path.unlink(missing_ok=True)
        if how in {"reset", "hang"}:
            raise _NoAnswerError(reset=True)
        if fault.error is not None:
            self._send(refused(Refusal(*fault.error, "as planned")))
        return fault.error is None

    def _send(self, answer: Answer, *, cut: bool = False, flipped: int | None = None) -> None:
        num_bytes = 0 if self.command == "HEAD" else answer.body_bytes
        length = answer.body_bytes if answer.length is None else answer.length
        headers = {
            "Server": "epochal-testing", "Date": self.date_time_string(),
            "x-amz-request-id": os.urandom(8).hex(), "Content-Length": str(length),
            **answer.headers,
        }  # fmt: skip
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {answer.status} {_reason(answer.status)}"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        try:
            if cut:
                head = (
                    head if num_bytes else head[: len("HTTP/1.1 ")]
                )  # headers alone would be enough
                num_bytes //= 2
            self.wfile.write(head)
            for piece in _pieces(answer, num_bytes, flipped):
                self.wfile.write(piece)
        finally:
            _close(answer)


def _faults(given: Any) -> list[RequestFault]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise ValueError("expected a list of faults, each an object with the fields of a fault")
    return [RequestFault(**one) for one in given]


def _pieces(answer: Answer, num_bytes: int, flipped: int | None) -> Iterator[bytes]:
    """The first `num_bytes` of the body. flipped: the byte of which the lowest bit is changed."""
    sent = 0
    if isinstance(answer.body, FilePiece):
        answer.body.file.seek(answer.body.start)
    while sent < num_bytes:
        size = min(_PIECE_BYTES, num_bytes - sent)
        if isinstance(answer.body, bytes):
            piece = answer.body[sent : sent + size]
        else:
            piece = answer.body.file.read(size)
        if flipped is not None and sent <= flipped < sent + len(piece):
            changed = bytearray(piece)
            changed[flipped - sent] ^= 1
            piece = bytes(changed)
        sent += len(piece)
        yield piece


def _close(answer: Answer) -> None:
    if isinstance(answer.body, FilePiece):
        answer.body.file.close()


def _internal(error: OSError) -> Answer:
    return refused(Refusal(500, "InternalError", str(error)))


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def serve(folder: Path, *, port: int, plan: RequestPlan) -> FaultyServer:
    """A server on loopback that goes on with what lies in `folder`; 0: any free port.

    Raises OSError where the port is taken.
    """
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    for left in scratch.iterdir():  # of requests that a killed server had begun
        if left.is_dir():
            for one in left.iterdir():
                one.unlink()
            left.rmdir()
        else:
            left.unlink()
    return FaultyServer(("127.0.0.1", port), Service(folder), plan)
