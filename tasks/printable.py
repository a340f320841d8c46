"""Texts of users as they are shown: what would act on a terminal or a page is written out.

A name, a path or an error's text may hold anything: escapes that move the cursor or set a title,
characters that turn the direction of what follows, half characters of undecodable paths.
"""

from __future__ import annotations

import re

# C0 but tab and newline, DEL and C1; marks and overrides of direction; separators that some
# terminals take for a newline; surrogates, which UTF-8 cannot hold; the byte order mark.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: str) -> str:
    r"""`text` with each acting character written out: `\x1b` for escape, `\u202e`, `\ud83e`."""
    if text.isascii() and text.isprintable():
        return text
    return _ACTING.sub(_written_out, text.replace("\r\n", "\n"))


def printable_json(text: str) -> str:
    """A JSON document with the same characters as JSON's own escapes: it holds the same values."""
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def markdown_code(text: str) -> str:
    """`text` as code in a line of Markdown, whatever backticks, links or HTML are in it."""
    shown = printable(text).replace("\n", "\\n") or " "
    fence = "`"
    while fence in shown:
        fence += "`"
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
