"""Settings of other libraries that must be in the environment before those are imported.

Imports none of them, and changes no setting that the user has made.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from epochal.data.errors import ConfigError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROXIES = tuple(
    written
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    for written in (name, name.lower())
)
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # No telemetry. Prefect's heartbeat to its vendor, then what Prefect and MLflow both read:
        # MLflow takes `true` only, not `1`.
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # `mlflow server` would start eight job processes that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # The defaults (120 s a request, 7 retries) would stall training when the server is away.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        # Should Prefect ever store a result, then not with pickle.
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    }
)


def prepare_environment() -> None:
    """Sets what Prefect and MLflow read when they are imported; call it before that."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    _exempt_loopback_from_proxies()


@contextmanager
def importing() -> Iterator[None]:
    """Imports inside the block run without garbage collection, and are exempt from it afterwards.

    torch, Prefect and MLflow create a million objects that live until the process ends. Without
    walks over them the imports took 4.4 instead of 6.2 s, and the exit 0.2 instead of 1.2 s.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def check_environment() -> None:
    """Raises ConfigError for a variable that the clients of servers would stumble over.

    They read these also where they talk to servers of this machine only, and their errors name no
    variable.
    """
    for name in _PROXIES:
        if value := os.environ.get(name):
            _check_proxy(name, value)
    for name in (*_CERTIFICATES, "SSL_CERT_DIR"):
        value = os.environ.get(name)
        is_there = Path.is_dir if name == "SSL_CERT_DIR" else Path.exists
        if value and not is_there(Path(value)):
            raise ConfigError(f"{name}: there is no {value!r}; correct it, or unset {name}")
    if value := os.environ.get("SSL_CERT_FILE"):
        import ssl  # with its C library a tenth of what `--version` takes

        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # an SSLError is one
            raise ConfigError(
                f"SSL_CERT_FILE: {value!r} holds no certificates ({error}); correct it, or unset "
                "SSL_CERT_FILE"
            ) from error
    try:
        Path.home()
    except RuntimeError as error:
        raise ConfigError(
            "HOME: is not set, and the system knows no home of this user; set it to a folder that "
            "can be written"
        ) from error


def _check_proxy(name: str, value: str) -> None:
    address = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(address)
        fits = parts.scheme.lower() in _PROXY_SCHEMES and parts.port != -1
    except ValueError:
        fits = False
    if not fits:
        shown = address.rpartition("@")[2]  # a password may stand before it
        raise ConfigError(
            f"{name}: found {shown!r}; expected the address of a proxy, such as "
            f"http://host:3128 or socks5://host:1080; correct it, or unset {name}"
        )


def _exempt_loopback_from_proxies() -> None:
    """A proxy in the environment must not be asked for servers of this machine.

    Entries that httpx, the client of Prefect, fails at are left out. The other clients read none
    of them: networks in IPv6 mean something to curl alone.
    """
    names = [name for name in ("NO_PROXY", "no_proxy") if name in os.environ] or ["NO_PROXY"]
    for name in names:
        hosts = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" in hosts:  # nothing goes through a proxy; beside others urllib would not know it
            os.environ[name] = "*"
            continue
        hosts = [read for host in hosts if (read := _as_read(host)) is not None]
        missing = [host for host in _LOOPBACK if host not in hosts]
        os.environ[name] = ",".join([*hosts, *missing])


def _as_read(host: str) -> str | None:
    """An entry of NO_PROXY as httpx reads it; None for one that it cannot read."""
    if "://" in host:
        return host
    with suppress(ValueError):
        return str(IPv6Address(host.removeprefix("[").removesuffix("]")))
    name, colon, port = host.partition(":")
    return host if host.isascii() and (not colon or (name and port.isdigit())) else None
