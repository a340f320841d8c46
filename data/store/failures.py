"""What storage raises, and what a person can do about it.

fsspec passes on the errors of the packages below it, and those share no base class. Their classes
are looked up in the modules that are loaded already, which saves the import of all these packages:
whatever raised an error has loaded its class.
"""

from __future__ import annotations

import errno
import sys
import time
from email.utils import parsedate_to_datetime
from typing import Any

_FOREIGN = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
_BY_NAME = {
    "NoCredentialsError": "give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "AWS_PROFILE, or fsspec's own configuration",
    "PartialCredentialsError": "give both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "EndpointConnectionError": "check AWS_ENDPOINT_URL, the region and the network",
    "ConnectTimeoutError": "check AWS_ENDPOINT_URL, the region and the network",
    "NotADirectoryError": "name another store, or move that file away",
    "FileNotFoundError": "look whether the bucket, container or folder is there",
    "ResourceNotFoundError": "create the container, or correct its name",
    "PermissionError": "check the permissions or credentials for this place",
    "NotImplementedError": "this kind of file system cannot hold a store; name another",
    "RefreshError": "give valid Google credentials",
    "DefaultCredentialsError": "give Google credentials: GOOGLE_APPLICATION_CREDENTIALS",
}
_BY_ERRNO = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the quota is used up: free some space",
    errno.EROFS: "it is mounted read-only: name another store",
    errno.EFBIG: "files may not be that large here: raise the limit (`ulimit -f`)",
    errno.EIO: "check the disk or network",
}
_SILENT = {
    "ConnectionError",  # Python's own and botocore's
    "TimeoutError",
    "HTTPClientError",
    "ClientConnectionError",
    "ClientPayloadError",
    "IncompleteRead",
    "ResponseParserError",  # of botocore, for an answer that was cut
}
"""Names of the error classes of a storage that is away or cannot be reached."""
_CHANGED = {"FlexibleChecksumError"}  # of botocore: an answer's bytes are not those of its checksum
_BUSY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {"OperationAborted", "ConditionalRequestConflict"}  # of S3: another request is under way
    | {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"}  # bytes changed on the way
)
_BY_CODE = {"NoSuchBucket": "create the bucket, or correct its name"}
_REFUSED_STATUS = frozenset({400, 401, 403})
MAX_SKEW_S = 240  # Azure and S3 take 15 minutes, some gateways 5


def storage_errors() -> tuple[type[Exception], ...]:
    """The classes of all errors of a storage, as an `except` clause takes them."""
    classes: list[type[Exception]] = [OSError, NotImplementedError]
    for module, names in _FOREIGN.items():
        if module in sys.modules:
            classes += [getattr(sys.modules[module], name) for name in names]
    return tuple(classes)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: the storage is away or too busy."""
    if any(kind.__name__ in _SILENT | _CHANGED for kind in type(error).__mro__):
        return True
    if error_code(error) in _PASSING_CODES:
        return True
    return _status(error) in _BUSY_STATUS or _status(error.__cause__) in _BUSY_STATUS


def error_code(error: BaseException | None) -> str | None:
    """What S3 calls the error (`NoSuchBucket`), if it is one of S3."""
    for raised in (error, getattr(error, "__cause__", None)):
        response = getattr(raised, "response", None)
        if isinstance(response, dict):
            code = response.get("Error", {}).get("Code")
            return None if code is None else str(code)
    return None


def _status(error: BaseException | None) -> int | None:
    """The HTTP status that an error of botocore, gcsfs or azure holds, if it is one."""
    response = getattr(error, "response", None)
    status = (
        response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(response, dict)
        else getattr(error, "status_code", getattr(error, "code", None))
    )
    return status if isinstance(status, int) else None


def _skew_s(error: BaseException | None) -> float | None:
    """How far this machine's clock is ahead of the storage's, where a refusal says its time."""
    for raised in (error, getattr(error, "__cause__", None)):
        if _status(raised) not in _REFUSED_STATUS:
            continue
        response: Any = getattr(raised, "response", None)
        headers: Any = (
            response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            if isinstance(response, dict)
            else getattr(response, "headers", None) or {}
        )
        try:
            date = parsedate_to_datetime(str(headers.get("date") or headers.get("Date")))
        except (TypeError, ValueError):
            continue
        return time.time() - date.timestamp()
    return None


def cause_of(error: BaseException) -> str:
    """The error in one line: its class and its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def advice(error: Exception) -> str:
    """What a person can do about the error, as a part of a message."""
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    skew_s = _skew_s(error)
    if skew_s is not None and abs(skew_s) > MAX_SKEW_S:
        return (
            f"the clock of this machine is {abs(skew_s) / 60:.0f} minutes "
            f"{'ahead of' if skew_s > 0 else 'behind'} the storage's, which refuses such requests: "
            "set it (for example by NTP)"
        )
    code = error_code(error)
    if code == "RequestTimeTooSkewed":
        return "the clock of this machine is wrong: set it (for example by NTP)"
    if code in _BY_CODE:
        return _BY_CODE[code]
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_NAME:
            return _BY_NAME[kind.__name__]
    return "check that the store can be reached"
