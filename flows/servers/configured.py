"""Which Prefect server the user has set: read where Prefect reads it, without importing Prefect.

Starts nothing and asks no server, except to find out whether it answers.
"""

from __future__ import annotations

import os
import tomllib
from http import HTTPStatus
from pathlib import Path
from typing import Any

from epochal.data.errors import ConfigError, ServerUnavailable
from epochal.data.secrets import has_secret, masked
from epochal.flows.servers.home import ServerHome
from epochal.tasks.http import ask

_VARIABLE = "PREFECT_API_URL"
# Profiles that Prefect ships; the user's file needs not repeat them.
_SHIPPED_PROFILES = {"local": {_VARIABLE: "http://127.0.0.1:4200/api"}}
_UNAUTHORISED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
BUSY_S = 30.0
"""A server on SQLite may be silent for seconds while others write; one that is away refuses."""


def configured_api_url() -> str | None:
    """The URL of the Prefect API that the user has set; None if none is set.

    In Prefect's own order: the environment, `.env`, `prefect.toml` and `pyproject.toml` of the
    working directory, the active profile. Raises ConfigError for a file that is no TOML, and for a
    password in the URL: it would be printed.
    """
    url = (
        os.environ.get(_VARIABLE)
        or _from_dotenv(Path(".env"))
        or _from_table(_toml(Path("prefect.toml")))
        or _from_table(_toml(Path("pyproject.toml")).get("tool", {}).get("prefect", {}))
        or _from_profile()
    )
    if url is not None and has_secret(url):
        raise ConfigError(
            f"{_VARIABLE}: {masked(url)} holds a password; leave it out, and give "
            "PREFECT_API_AUTH_STRING=user:password by the environment"
        )
    return url


def ui_url_of(api_url: str) -> str:
    """Where the UI of the server with this API is."""
    named = os.environ.get("PREFECT_UI_URL") or api_url.rstrip("/").removesuffix("/api")
    return masked(named)


def check_answers(api_url: str, *, timeout_s: float = BUSY_S) -> None:
    """Returns if a Prefect server answers there; raises ServerUnavailable otherwise."""
    address = f"{api_url.rstrip('/')}/health"
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"{_VARIABLE}: {api_url!r} is no http:// or https:// URL")
    try:
        status = ask(address, timeout_s=timeout_s).status
    except OSError as error:
        cause = str(getattr(error, "reason", error))
    else:
        # Refused or redirected: the server is there, and Prefect's client has the credentials.
        if status < HTTPStatus.BAD_REQUEST or status in _UNAUTHORISED:
            return
        cause = f"status {status}"
    raise ServerUnavailable(
        f"{_VARIABLE} is {api_url}, but no Prefect server answers at {address} ({cause}); start "
        f"it, or unset {_VARIABLE} so that a local one is started"
    )


def _from_dotenv(path: Path) -> str | None:
    if not path.is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(path).get(_VARIABLE)


def _from_table(settings: Any) -> str | None:
    url = settings.get("api", {}).get("url")
    return url if isinstance(url, str) else None


def _from_profile() -> str | None:
    named = os.environ.get("PREFECT_PROFILES_PATH")
    stored = _toml(Path(named) if named else ServerHome.current().folder / "profiles.toml")
    active = os.environ.get("PREFECT_PROFILE") or str(stored.get("active"))
    # Prefect uses its shipped profiles where there is no file, else only those of the file.
    profiles = stored.get("profiles", {}) if stored else _SHIPPED_PROFILES
    url = profiles.get(active, {}).get(_VARIABLE)
    return url if isinstance(url, str) else None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.absolute()}: is no TOML file: {error}") from error
