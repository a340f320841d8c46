"""Names of a package that are imported when they are first used.

A package's `__init__` can then offer names whose modules need torch or pyarrow, and importing the
package stays cheap.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for `package` (PEP 562); `names`: module → what it defines."""
    module_of = {name: module for module, defined in names.items() for name in defined}

    def look_up(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    def list_names() -> list[str]:
        return list(sys.modules[package].__all__)

    return look_up, list_names
