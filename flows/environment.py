"""Settings of other libraries that must be in the environment before those are imported.

Imports none of them, and changes no setting that the user has made.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

_LOOPBACK = ("127.0.0.1", "localhost")

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


def _exempt_loopback_from_proxies() -> None:
    """A proxy in the environment must not be asked for servers of this machine."""
    names = [name for name in ("NO_PROXY", "no_proxy") if name in os.environ] or ["NO_PROXY"]
    for name in names:
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        missing = [host for host in _LOOPBACK if host not in hosts]
        os.environ[name] = ",".join([*hosts, *missing])
