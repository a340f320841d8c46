"""One HTTP request and its answer, whatever its status. Knows no server by name.

The caller decides what a status means. A server on this machine is never asked through a proxy, and
no redirect is followed: most lead to a login page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPErrorProcessor, ProxyHandler, Request, build_opener

_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Answer:
    """What a server said. body: all of it, or its first `most_bytes` bytes."""

    status: int
    body: bytes


class _EveryStatus(HTTPErrorProcessor):
    """Takes every status for an answer: urllib raises for an error and follows a redirect."""

    def http_response(self, request: Request, response: Any) -> Any:  # noqa: ARG002 - urllib's name
        """The response as it came."""
        return response

    https_response = http_response


def ask(
    url: str,
    *,
    timeout_s: float,
    headers: Mapping[str, str] = _NO_HEADERS,
    posted: object = None,
    most_bytes: int | None = None,
) -> Answer:
    """The answer to a GET of an http or https address; with `posted`, to a POST of that as JSON.

    timeout_s: the longest silence of the server. Raises OSError if no whole answer comes.
    """
    data = None if posted is None else json.dumps(posted).encode()
    kind = {} if posted is None else {"Content-Type": "application/json"}
    request = Request(url, data=data, headers={**headers, **kind})  # noqa: S310 - the caller's URL
    proxies = [ProxyHandler({})] if _is_loopback(url) else []
    try:
        with build_opener(_EveryStatus, *proxies).open(request, timeout=timeout_s) as response:
            return Answer(response.status, response.read(most_bytes))
    except HTTPException as error:  # no HTTP, or gone in the middle of it
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
