"""Names as MLflow takes them: two names never become one, and what MLflow takes stays as it is.

MLflow's keys consist of letters, digits and `_ - . / :` and spaces, of at most 250 characters, and
are paths without empty parts that do not begin with two dots. Here a colon begins and ends an
escape: `recall@5` is `recall:at:5`. Databases may take letters of either case, with or without
accents, as the same; names that differ in nothing else get an escape too. Knows nothing of MLflow
but these rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from epochal.data.hashing import digest

MAX_CHARS = 250
_ALLOWED = re.compile(r"[\w.\- /]")
_WORDS = {
    "<": "lt", ">": "gt", "=": "eq", "@": "at", "+": "plus", "*": "star", "%": "percent",
    "&": "and", "|": "or", "!": "not", "?": "question", "#": "number", "$": "dollar",
    "^": "caret", "~": "tilde", "(": "lpar", ")": "rpar", "[": "lbrack", "]": "rbrack",
    "{": "lbrace", "}": "rbrace", ",": "comma", ";": "semicolon", ":": "colon", "'": "apostrophe",
    '"': "quote", "`": "backtick", "\\": "backslash", " ": "space", ".": "dot",
}  # fmt: skip


def mlflow_name(text: str) -> str:
    """`text` as one of MLflow's keys; other texts give other keys."""
    return _joined(text, "".join(map(_character, text)))


def mlflow_names(texts: Iterable[str]) -> dict[str, str]:
    """Each text with its key; no two keys are the same where case and accents do not count."""
    alike: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        alike.setdefault(_folded(text), []).append(text)
    return {
        text: mlflow_name(text)
        if len(group) == 1
        else _joined(text, "".join(map(_folding_character, text)))
        for group in alike.values()
        for text in group
    }


def _character(one: str) -> str:
    return one if _ALLOWED.fullmatch(one) else _escape(one)


def _folding_character(one: str) -> str:
    return _escape(one) if _folded(one) != one else _character(one)


def _escape(one: str) -> str:
    return f":{_WORDS.get(one) or f'u{ord(one):x}'}:"


def _folded(text: str) -> str:
    """`text` without what databases may overlook: case, accents, the form of a letter."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(one for one in apart if not unicodedata.combining(one))
    return unicodedata.normalize("NFKD", plain.casefold())


def _joined(text: str, escaped: str) -> str:
    name = "/".join(map(_part, escaped.split("/")))
    if name.startswith(".."):
        name = _escape(".") + name[1:]
    if len(name) <= MAX_CHARS:
        return name
    tail = f":sha256.{digest('mlflow-name', text)[:16]}:"
    return name[: MAX_CHARS - len(tail)].rstrip("/. ") + tail


def _part(part: str) -> str:
    """A part of the path: not empty, no dots alone, and no space at its ends."""
    if not part:
        return ":empty:"
    if not part.strip("."):
        return _escape(".") + part[1:]
    bare = part.strip(" ")
    before = len(part) - len(part.lstrip(" "))
    after = len(part) - before - len(bare) if bare else 0
    return _escape(" ") * before + bare + _escape(" ") * after
