"""Versions of the installed packages that targets come from. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata

from epochal.data.hashing import bytes_sha256

_LOCAL = "direct_url.json"
"""A distribution has it that was installed from a folder or an address, not from an index."""
_DIGITS = 8


def package_versions(modules: Iterable[str]) -> dict[str, str]:
    """Distribution → version, of those that top-level modules are of; the others are left out."""
    versions: dict[str, str] = {}
    for module in sorted(modules):
        for distribution in _distributions(module):
            described = (
                distribution.metadata
            )  # parsed each time that it is asked for, as its name is
            versions[described["Name"]] = _version(distribution, described["Version"])
    return versions


def _distributions(module: str) -> list[metadata.Distribution]:
    try:
        return [metadata.distribution(module)]  # most have the name of their module
    except (metadata.PackageNotFoundError, ValueError):
        return [metadata.distribution(name) for name in sorted({*_of_modules().get(module, ())})]


@cache
def _of_modules() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())  # it reads the lists of all: 0.4 s for 240


def _version(distribution: metadata.Distribution, version: str) -> str:
    """Its version; with a digest of its code where another code may have the same version."""
    if distribution.read_text(_LOCAL) is None:
        return version
    lines = sorted(
        line
        for line in (distribution.read_text("RECORD") or "").splitlines()
        if line.partition(",")[0].endswith(".py")
    )
    files = bytes_sha256("\n".join(lines).encode())[:_DIGITS]
    return f"{version} ({files})"
