"""HTML out of texts that nobody has checked: every one is escaped unless it is `Html` already."""

from __future__ import annotations

import base64
from html import escape


class Html(str):
    """Text that is HTML by construction."""

    __slots__ = ()


_EMPTY = ("img", "meta", "source", "path", "i")
"""Elements that are written without an end, or are the same with an empty one."""


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name …>children</name>`; `class_` and `aria_label` are the attributes of these names."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
    )
    inside = joined(*children)
    if name in _EMPTY and not inside:
        end = {"path": "/>", "i": "></i>"}.get(name, ">")
        return Html(f"<{name}{written}{end}")
    return Html(f"<{name}{written}>{inside}</{name}>")


def joined(*parts: object) -> Html:
    """The parts one after the other; what is not HTML is escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts))


def png_address(data: bytes) -> str:
    """The picture itself as an address: nothing is fetched for it."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
