"""`epochal join`: an engine on this machine, whose processes join a run of another one."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from urllib.parse import urlsplit

from epochal.data.errors import ConfigError, InputError, Unavailable
from epochal.tasks.config.parts import PORT, split_address
from epochal.tasks.joining.connection import TOKEN, Refused, greeting, reached, shown
from epochal.tasks.joining.engine import UNREACHABLE, Engine, not_warned

SCHEME = "epochal://"
LEAVE_WITHIN_S = 20.0
"""How long the run may go on with this machine after a SIGTERM here."""


def join_run(url: str, *, wait_s: float) -> None:
    """Joins the run, and works until it ends.

    url: HOST:PORT, epochal://HOST:PORT or epochal://TOKEN@HOST:PORT. wait_s: how long nobody may
    answer there, at first and whenever the run is lost.

    Raises InputError for a wrong address or secret, Unavailable if there is no run.
    """
    address, token = _target(url)
    try:
        channel, _ = reached(address, token, within_s=wait_s)
        with closing(channel):
            told = {"host": socket.gethostname(), "pid": os.getpid(), "place": 0}
            welcome = greeting(channel, kind="engine", told=told)
    except Refused as error:
        raise InputError(
            f"the run at {shown(address)} refuses this machine: {error}. {TOKEN} must be here what "
            "it is there, and epochal of the same version"
        ) from error
    except (OSError, EOFError) as error:
        raise Unavailable(f"no run at {shown(address)} within {wait_s:g} s: {error}") from error
    given = {"address": address, "workers": welcome["workers"], "wait_s": wait_s}
    engine, code = Engine("elastic", given, token=token), -1
    left_s = 0.0
    try:
        not_warned()
        code = engine.wait()
    except KeyboardInterrupt:
        raise
    except BaseException:  # a scheduler ends the job: the run, told as well, still commits
        left_s = LEAVE_WITHIN_S
        engine.leave()
        raise
    finally:
        engine.end(within_s=left_s)
    if code:
        lost = f"no run at {shown(address)} within {wait_s:g} s" if code == UNREACHABLE else ""
        raise Unavailable(lost or f"the processes here have ended with exit code {code}")


def _target(url: str) -> tuple[tuple[str, int], str]:
    """Address and secret."""
    parts = urlsplit(url if "://" in url else f"{SCHEME}{url}")
    if not f"{parts.scheme}://" == SCHEME or parts.path not in {"", "/"} or parts.query:
        raise ConfigError(
            f"{url!r} is no address of a run; expected HOST:PORT or {SCHEME}HOST:PORT"
        )
    given, _, place = parts.netloc.rpartition("@")
    try:
        host, port = split_address(place)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    token = given or os.environ.get(TOKEN, "")
    if not token:
        raise ConfigError(f"{TOKEN} is not set; expected the secret of the run at {place}")
    return (host, PORT if port is None else port), token
