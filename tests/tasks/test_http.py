"""One request: every status is an answer, this machine needs no proxy, silence is an OSError."""

import contextlib
import http.server
import json
import socket
import threading

import pytest

from epochal.tasks.http import ask


@contextlib.contextmanager
def serving(status=200, body=b"{}"):
    """The address of a server that gives one answer, and what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            asked.append((self.command, self.path, dict(self.headers), sent))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_every_status_is_an_answer_and_no_redirect_is_followed(status):
    with serving(status, b"said") as (url, asked):
        answer = ask(f"{url}/path?a=b", headers={"X-Given": "yes"}, timeout_s=5)
    assert (answer.status, answer.body) == (status, b"said")
    ((command, path, headers, _),) = asked
    assert (command, path, headers["X-Given"]) == ("GET", "/path?a=b", "yes")


def test_what_is_posted_arrives_as_json():
    with serving() as (url, asked):
        ask(url, posted={"limit": 1}, timeout_s=5)
    ((command, _, headers, sent),) = asked
    assert (command, headers["Content-Type"]) == ("POST", "application/json")
    assert json.loads(sent) == {"limit": 1}


def test_no_more_is_read_than_was_asked_for():
    with serving(body=b"x" * 100) as (url, _):
        assert ask(url, most_bytes=7, timeout_s=5).body == b"x" * 7


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://127.0.0.1:1"},
        {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "example.org,fd00::/8"},
        {"ALL_PROXY": "socks5://127.0.0.1:1", "all_proxy": "socks5://127.0.0.1:1"},
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_never_asked_through_a_proxy(variables, host, monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with serving() as (url, asked):
        assert ask(url.replace("127.0.0.1", host), timeout_s=5).status == 200
    assert len(asked) == 1


def test_another_machine_is_asked_through_the_proxy_that_is_set(monkeypatch):
    with serving(body=b"by proxy") as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert ask("http://epochal.invalid/health", timeout_s=5).body == b"by proxy"
    assert asked[0][1] == "http://epochal.invalid/health"


def speaking(said):
    """The address of something that says this and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def speak():
        with listening, listening.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(said)

    threading.Thread(target=speak, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]
)
def test_what_is_no_whole_answer_is_an_oserror(said):
    with pytest.raises(OSError, match=r"\w"):
        ask(speaking(said), timeout_s=5)


def test_nobody_there_is_an_oserror():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            ask(f"http://127.0.0.1:{unused.getsockname()[1]}", timeout_s=5)
