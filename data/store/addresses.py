"""Where a store is, as text: which addresses are accepted, and which names may become paths.

Knows nothing of what a store holds, opens nothing, and imports no storage package.
"""

from __future__ import annotations

import difflib
import os
import re
from importlib.util import find_spec
from pathlib import Path

from epochal.data.errors import BadStore
from epochal.data.secrets import INSTEAD, has_secret

FORMS = "write ./folder, ../folder, /folder or scheme://place, for example s3://bucket/prefix"
MAX_PATH_CHARACTERS = 900  # S3 allows 1024 bytes for the prefix and the path together
MAX_NAME_BYTES = 255  # of one folder, on every usual file system
MAX_FOLDER_BYTES = 3500  # of 4096 that a path may have: the rest is for what a store has below it
MAX_PREFIX_BYTES = 700  # of 1024 that a key may have, likewise

# Schemes whose addresses begin with the name of a bucket or container.
BUCKETED = frozenset({"s3", "gs", "abfs", "az", "adl", "oss", "oci"})
_ALIASES = {"local": "file", "s3a": "s3", "gcs": "gs"}
# fsspec's views of other storage, archives, caches and read-only sources: no place for commits.
_NO_STORES = frozenset(
    {"async_wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "dask", "data", "dir"}
    | {"filecache", "generic", "gist", "git", "github", "http", "https", "libarchive"}
    | {"pyscript", "reference", "simplecache", "tar", "zip"}
)
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+_-]*)://(.*)")
_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+_-]+:/?(?!/)")
_ONE = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"
_SEGMENT, _PATH = re.compile(_ONE), re.compile(f"{_ONE}(?:/{_ONE})*")
MAX_SHOWN = 60  # characters of a text that is too long
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def normalise_store(text: str, *, folder: Path) -> str:
    """The one address that stands for the store `text`: `file:///absolute` or `scheme://place`.

    `./x` and `../x` are resolved against `folder`, which is absolute. Nothing is opened and the
    place need not exist. Raises BadStore, saying what to write instead, for `runs/x`, `s3:/x`,
    chains with `::`, passwords, unknown schemes and schemes whose package is not installed.
    """
    assert folder.is_absolute()
    if has_secret(text):
        raise BadStore(f"the store's address holds a password; {INSTEAD}")
    if not text or text != text.strip() or _UNPRINTABLE.search(text):
        raise BadStore(f"store {text!r} is empty or has spaces around it; {FORMS}")
    if text.startswith("/") or text.split("/", 1)[0] in {".", ".."}:
        return _file_address(os.path.normpath(folder / text), text)
    if "::" in text:
        raise BadStore(
            f"store {text!r} chains file systems with '::'; name one place: {FORMS}; known schemes "
            f"are {', '.join(_known_schemes())}"
        )
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise BadStore(_no_address(text))
    scheme, place = match.group(1).lower(), match.group(2)
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "file":
        if not place.startswith("/"):
            raise BadStore(
                f"store {text!r}: file:// wants an absolute path, as in file:///{place}; "
                f"for a folder beside the config write ./{place}"
            )
        return _file_address(os.path.normpath(place), text)
    _check_scheme(scheme, text)
    return f"{scheme}://{_place(scheme, place, text)}"


def scheme_of(address: str) -> str:
    """The scheme of a normalised address."""
    return address.partition("://")[0]


def local_folder(address: str) -> Path:
    """The folder of a normalised `file://` address."""
    assert scheme_of(address) == "file"
    return Path(address.removeprefix("file://"))


def join(address: str, path: str) -> str:
    """The address of the object `path` in the store at `address`. Raises BadStore."""
    return f"{address}/{check_path(path)}"


def check_path(path: str) -> str:
    """`path` itself, if it may name an object: segments of letters, digits, `.`, `_` and `-`.

    Raises BadStore for anything else: absolute paths, `..`, empty segments, other characters.
    """
    if is_path(path):
        return path
    raise BadStore(
        f"{path!r:.100} cannot name an object of a store: expected at most {MAX_PATH_CHARACTERS} "
        "characters, in segments of letters, digits, '.', '_' and '-', none of them '.' or '..'"
    )


def is_path(text: str) -> bool:
    """Whether `text` may name an object."""
    return len(text) <= MAX_PATH_CHARACTERS and _PATH.fullmatch(text) is not None


def is_segment(text: str) -> bool:
    """Whether `text` may be one segment of an object's path."""
    return _SEGMENT.fullmatch(text) is not None


def _file_address(path: str, text: str) -> str:
    path = "/" + path.lstrip("/")  # normpath keeps two leading slashes
    if _UNPRINTABLE.search(path):
        raise BadStore(f"store {path!r} holds a control character; {FORMS}")
    for name in path.split("/"):
        if (length := len(os.fsencode(name))) > MAX_NAME_BYTES:
            raise BadStore(
                f"store {_short(text)}: the folder {_short(name)} has {length} bytes; a name has "
                f"at most {MAX_NAME_BYTES}: shorten it"
            )
    if (length := len(os.fsencode(path))) > MAX_FOLDER_BYTES:
        raise BadStore(
            f"store {_short(text)}: its path has {length} bytes, expected at most "
            f"{MAX_FOLDER_BYTES}: name a folder further up"
        )
    if path == "/":
        raise BadStore(f"store {text!r} is the root folder; name a folder of its own")
    return f"file://{path}"


def _short(text: str) -> str:
    return repr(text) if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]!r}…"


def _no_address(text: str) -> str:
    if text.startswith("~"):
        return f"store {text!r}: '~' is not expanded; write the absolute path"
    if _ONE_SLASH.match(text):
        scheme, _, place = text.partition(":")
        slashes = ":///" if scheme.lower() in {"file", "local"} else "://"
        return f"store {text!r} has no '://'; did you mean {scheme}{slashes}{place.lstrip('/')}?"
    return f"store {text!r} is neither a path nor an address; did you mean ./{text}? {FORMS}"


def _check_scheme(scheme: str, text: str) -> None:
    from fsspec.registry import known_implementations

    if scheme not in known_implementations:
        known = _known_schemes()
        nearest = difflib.get_close_matches(scheme, known, n=1, cutoff=0.5)  # s4 is near s3
        meant = f"did you mean {nearest[0]}://? " if nearest else ""
        raise BadStore(
            f"store {text!r}: unknown scheme {scheme!r}; {meant}known are {', '.join(known)}"
        )
    if scheme in _NO_STORES:
        raise BadStore(
            f"store {text!r}: {scheme}:// is no place to write a store to; {FORMS}; known schemes "
            f"are {', '.join(_known_schemes())}"
        )
    implementation = known_implementations[scheme]
    package = implementation["class"].partition(".")[0]
    if find_spec(package) is None:
        command = "pip install 'epochal[s3]'" if scheme == "s3" else f"pip install {package}"
        hint = implementation.get("err", "")
        raise BadStore(
            f"store {text!r}: {scheme}:// needs the package {package!r}, which is not installed; "
            f"run `{command}`" + (f" ({hint})" if hint else "")
        )


def _known_schemes() -> list[str]:
    from fsspec.registry import known_implementations

    return sorted(set(known_implementations) - _NO_STORES - set(_ALIASES))


def _place(scheme: str, place: str, text: str) -> str:
    segments = place.strip("/").split("/")
    if not segments[0] or (place.startswith("/") and scheme in BUCKETED):
        raise BadStore(f"store {text!r} names no place; write {scheme}://name or more after it")
    if not all(segments):
        raise BadStore(f"store {text!r} has an empty segment; write single slashes")
    if {".", ".."} & set(segments) or {"?", "#", "*", "\\"} & set(place):
        raise BadStore(f"store {text!r}: '.', '..', '?', '#', '*' and '\\' have no place in it")
    if (length := len(place.encode(errors="surrogateescape"))) > MAX_PREFIX_BYTES:
        raise BadStore(
            f"store {_short(text)} has {length} bytes, expected at most {MAX_PREFIX_BYTES}: "
            "shorten the prefix"
        )
    root = (
        "/" if place.startswith("/") and scheme != "memory" else ""
    )  # hdfs:///x means the default host
    return root + "/".join(segments)
