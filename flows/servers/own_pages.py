"""Who may talk to a server on loopback: programs of this machine, and the server's own pages.

Every page that is open in a browser can send requests to 127.0.0.1, and a name that its owner
points there makes them look like the server's own (DNS rebinding). What tells them apart is in
the headers that no script of a page can set. Knows neither Prefect nor MLflow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

# Sent by browsers to loopback: `none` is an address that a person typed.
_OF_OWN_PAGE = frozenset({b"same-origin", b"none"})
# No other page shows one of ours in a frame, to have it clicked; none of ours calls another host
# (Prefect's new UI has an analytics client that no setting turns off).
_POLICY = b"connect-src 'self'; form-action 'self'; frame-ancestors 'self'"


def own_pages_only(app: App) -> App:
    """`app`, refusing with 403 what `refusal` names: requests and WebSockets."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await app(scope, receive, send)
            return
        problem = refusal(scope["headers"], method=scope.get("method"))
        if problem is None:
            await app(scope, receive, _with_policy(send))
        elif scope["type"] == "http":
            body = f"{problem}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": 1008})  # before it opens: status 403

    return guarded


def refusal(headers: Headers, *, method: str | None) -> str | None:
    """Why a request is refused, or None. method: None for a WebSocket.

    Its `Host` must name loopback, at whatever port: a tunnel may have another one. An `Origin`
    must be that very host. Of a page elsewhere only a link is followed.
    """
    hosts, origins = _values(headers, b"host"), _values(headers, b"origin")
    if len(hosts) != 1 or not _is_loopback(hosts[0]):
        return (
            "Host: expected 127.0.0.1, localhost or [::1]: this server answers its own machine "
            "only, for other names use a server of your own with its authentication"
        )
    own = {scheme + hosts[0] for scheme in (b"http://", b"https://")}
    if not own.issuperset(origins):
        return "Origin: this server answers no page but its own"
    if _OF_OWN_PAGE.issuperset(_values(headers, b"sec-fetch-site")):
        return None
    follows_link = method == "GET" and _values(headers, b"sec-fetch-mode") == [b"navigate"]
    if follows_link and _values(headers, b"sec-fetch-dest") == [b"document"]:
        return None
    return "Sec-Fetch-Site: this server answers no page but its own"


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value.strip().lower() for key, value in headers if key.lower() == name]


def _is_loopback(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # no address, no ASCII, or another name
        return False


def _with_policy(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"content-security-policy", _POLICY)]
            message = {**message, "headers": headers}
        await send(message)

    return sending
