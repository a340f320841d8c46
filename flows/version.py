"""The version that is installed, and those of what it works with."""

from __future__ import annotations

import platform
from importlib import metadata

__version__ = metadata.version("epochal")


def versions() -> str:
    """What `epochal --version` prints."""
    others = (f"{name} {metadata.version(name)}" for name in ("torch", "prefect", "mlflow"))
    return ", ".join((f"epochal {__version__}", f"Python {platform.python_version()}", *others))
