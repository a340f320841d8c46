"""A proxy before the S3 server that loses, refuses, doubles or delays the requests of a test."""

import http.client
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

KINDS = ("put", "create", "part", "complete", "abort", "head", "get", "list", "delete")


def kind_of(method: str, path: str) -> str:
    """What a request asks for: one of `KINDS`, or its method."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    upload = "uploadId" in query
    return {
        "PUT": "part" if upload else "put",
        "POST": "create" if "uploads" in query else "complete" if upload else "post",
        "DELETE": "abort" if upload else "delete",
        "HEAD": "head",
        "GET": "list" if "list-type" in query else "get",
    }[method]


@dataclass
class Fault:
    """What happens to the next `count` requests of a kind, after `after` others of it.

    how: `lost` (done, the connection ends instead of the answer), `cut` (done, half of the answer
    comes), `twice` (done twice, the second answer counts), `late` (refused with 503, and done when
    the next one of another kind comes), or a status with its code: `503 SlowDown`.
    """

    kind: str
    how: str
    count: int = 1
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FaultyS3:
    """The proxy: its faults, and the kinds of the requests that came.

    share: of all requests, how many are refused with 500 or lost, drawn by `chance`.
    """

    faults: list[Fault] = field(default_factory=list)
    share: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    failed: int = 0
    seen: list[str] = field(default_factory=list)
    waiting: list[tuple[str, Callable[[], object]]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def next(self, kind: str) -> Fault | None:
        with self.lock:
            self.seen.append(kind)
            for fault in self.faults:
                if fault.kind not in (kind, "any"):
                    continue
                if fault.after:
                    fault.after -= 1
                elif fault.count:
                    fault.count -= 1
                    return fault
            if self.chance.random() < self.share:
                self.failed += 1
                return Fault(kind, self.chance.choice(["500 InternalError", "lost"]))
        return None


@contextmanager
def faulty_s3(endpoint: str) -> Iterator[FaultyS3]:
    """Serves the proxy before `endpoint`; the environment names it meanwhile."""
    proxy = FaultyS3()
    place = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def forward(self, body):
            connection = http.client.HTTPConnection(place, timeout=60)
            connection.request(self.command, self.path, body=body, headers=dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            return answer.status, answer.getheaders(), data

        def answer(self, status, headers, data, *, cut=False):
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                    self.send_header(name, value)
            length = {name.lower(): value for name, value in headers}.get("content-length")
            head = self.command == "HEAD" and length is not None
            self.send_header("Content-Length", length if head else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = kind_of(self.command, self.path)
            fault = proxy.next(kind)
            for waiting in [one for one in proxy.waiting if one[0] != kind]:
                proxy.waiting.remove(waiting)
                waiting[1]()
            if fault is None:
                self.answer(*self.forward(body))
            elif fault.how == "lost":
                self.forward(body)
                self.close_connection = True
            elif fault.how == "cut":
                status, headers, data = self.forward(body)
                self.answer(status, headers, data, cut=True)
                self.close_connection = True
            elif fault.how == "twice":
                self.forward(body)
                self.answer(*self.forward(body))
            else:
                if fault.how == "late":
                    proxy.waiting.append((kind, lambda: self.forward(body)))
                status, code = ("503", "SlowDown") if fault.how == "late" else fault.how.split()
                text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
                headers = [("Content-Type", "application/xml"), *fault.headers.items()]
                self.answer(int(status), headers, text.encode())

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            yield proxy
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
