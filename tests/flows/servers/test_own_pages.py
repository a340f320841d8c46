"""Which requests a server on loopback answers, by their headers; real servers: `test_servers`."""

import asyncio

import pytest

from epochal.flows.servers import own_pages_only
from epochal.flows.servers.own_pages import refusal

OWN = "127.0.0.1:4200"


def refused(method="POST", host=OWN, **headers):
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in named.items() if value is not None]
    return refusal(pairs, method=method)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", None])
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (OWN, None),
        (OWN, f"http://{OWN}"),
        ("localhost:4200", "http://localhost:4200"),
        ("[::1]:4200", "http://[::1]:4200"),
        ("localhost:8080", "http://localhost:8080"),  # a tunnel
        ("LOCALHOST:8080", "http://localhost:8080"),
        ("localhost", "https://localhost"),  # behind a proxy of this machine
    ],
)
def test_programs_and_own_pages_are_answered_at_any_port_of_a_tunnel(method, host, origin):
    assert refused(method, host, origin=origin) is None
    assert refused(method, host, origin=origin, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE", None])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:8888",
        "http://localhost:4200", f"http://{OWN}.evil.example", f"http://evil.example/{OWN}",
        f"file://{OWN}", f"http://evil@{OWN}", "*",
    ],
)  # fmt: skip
def test_a_page_of_any_other_origin_is_refused(method, origin):
    assert "Origin" in refused(method, origin=origin)


@pytest.mark.parametrize("with_origin", [False, True])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:4200", "10.evil.example", "127.0.0.1.evil.example",
        "localhost.evil.example:4200", "0.0.0.0:4200", "192.168.1.2:4200", "", "127.0.0.1@evil",
        "evil@evil.example", "[::]:4200", "lоcalhost", "[", None,
    ],
)  # fmt: skip
def test_a_name_that_somebody_pointed_here_is_refused(host, with_origin):
    origin = f"http://{host}" if with_origin else None
    assert "Host" in refused(host=host, origin=origin)
    assert "Host" in refused("GET", host=host, origin=origin, sec_fetch_site="same-origin")


def test_two_hosts_or_a_second_foreign_origin_are_refused():
    own = (b"host", OWN.encode())
    assert refusal([own, (b"Host", b"evil.example")], method="GET")
    assert refusal([own, own], method="GET")
    origins = [(b"origin", f"http://{OWN}".encode()), (b"Origin", b"http://evil.example")]
    assert refusal([own, *origins], method="POST")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "new"])
def test_of_a_page_elsewhere_only_a_link_is_followed(site):
    link = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert refused("GET", **link) is None
    assert refused("POST", **link)
    assert refused("GET", **{**link, "sec_fetch_dest": "iframe"})
    assert refused("GET", **{**link, "sec_fetch_mode": "no-cors"})
    assert refused("GET", sec_fetch_site=site)
    assert refused(None, sec_fetch_site=site)


def test_pages_may_not_be_framed_or_call_other_hosts():
    sent = []

    async def page(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": [(b"host", OWN.encode())]}
    asyncio.run(own_pages_only(page)(scope, None, send))
    headers = dict(sent[0]["headers"])
    assert headers[b"a"] == b"b"
    for part in (b"frame-ancestors 'self'", b"connect-src 'self'", b"form-action 'self'"):
        assert part in headers[b"content-security-policy"]
