"""Passwords in what people write: found in addresses and options, and left out of what is shown.

A config is printed, stored with every run, and sent to Prefect and MLflow. So a password in it is
refused; it comes from the environment or from fsspec's own configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

INSTEAD = (
    "leave it out: what is in a config or an address is printed, stored with the run and shown by "
    "Prefect and MLflow. Give it by the environment (AWS_SECRET_ACCESS_KEY, "
    "MLFLOW_TRACKING_PASSWORD, PGPASSWORD …) or fsspec's configuration (~/.config/fsspec)"
)
_WORDS = (
    "password|passwd|passphrase|secret|secret[_-]?key|access[_-]?key|account[_-]?key|api[_-]?key"
    "|private[_-]?key|shared[_-]?key|(?:access|api|auth|bearer|refresh|sas|session)[_-]?token"
    "|connection[_-]?string|authorization"
)
# In any part of a chain of addresses. With http a name without a password is a token.
_PASSWORD = re.compile(r"(?<=://)([^\s/?#@:'\"]*:)[^\s/@]+(?=@)")
_TOKEN = re.compile(r"((?:http|https)://)[^\s/?#@:]+(?=@)")
_QUERY = re.compile(
    rf"(?<=[?&;])((?:[\w.-]*[_.-])?(?:{_WORDS}|pwd|token|sig|signature)=)[^&;#\s'\"]+",
    re.IGNORECASE,
)
_IN_ADDRESSES = (_PASSWORD, _TOKEN, _QUERY)
_NAME = re.compile(rf"(?:.*[_.-])?(?:{_WORDS})", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TOKEN_CHARACTERS = 16
"""From this length on the value of `token` is one; `anon`, `mean` or `[MASK]` are words."""


def masked(text: str) -> str:
    """`text` with `…` for each password in an address; everything else stays."""
    for pattern in _IN_ADDRESSES:
        text = pattern.sub(r"\1…", text)
    return text


def has_secret(text: str) -> bool:
    """Whether an address in `text` holds a password."""
    return any(pattern.search(text) for pattern in _IN_ADDRESSES)


def secret_places(value: Any, place: str = "") -> Iterator[str]:
    """Where in nested mappings and lists a password stands: `train_data.args.secret`."""
    if isinstance(value, dict):
        for name, item in value.items():
            below = f"{place}.{name}" if place else str(name)
            if isinstance(item, str) and item and _is_secret_name(str(name), item):
                yield below
            else:
                yield from secret_places(item, below)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from secret_places(item, f"{place}[{index}]")
    elif isinstance(value, str) and has_secret(value):
        yield place


def _is_secret_name(name: str, value: str) -> bool:
    plain = _CAMEL.sub("_", name)
    if plain.lower() == "token":
        return len(value) >= _TOKEN_CHARACTERS and not value.startswith((".", "/", "["))
    return _NAME.fullmatch(plain) is not None
