"""Colours, and whether an output may be drawn on. Colour never tells what no word or sign tells."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

GOOD = "#008700"
NOTE = "bold #af5f00"
BAD = "bold #e60000"
QUIET = "#767676"
ACCENT = "#008787"
"""Each has a contrast of at least 4.3 against white and against black: nobody knows the ground."""


MOVING: list[Live] = []
"""What is drawn again and again at the terminal's end now, if anything is."""
DRAWING = threading.RLock()
"""Held from the first line that is made to the last that is written.

Rich makes a frame and then writes it: of two threads' frames, made one after the other, the one
written last would otherwise move up by the lines of a frame that no longer stands there.
"""


@contextmanager
def beside_what_moves(console: Console) -> Iterator[None]:
    """What the block prints to `console` stands above the lines that move.

    Rich does that for what is printed to their own console: for standard error, not for output.
    """
    with DRAWING:
        moving = next((one for one in MOVING if one.console is not console), None)
        if moving is None or not on_terminal(console):
            yield
            return
        moving.stop()
        try:
            yield
        finally:
            moving.start()


def on_terminal(console: Console) -> bool:
    """Whether a person sees it on a terminal; no file is one, whatever FORCE_COLOR says."""
    isatty = getattr(console.file, "isatty", None)
    return console.is_terminal and isatty is not None and bool(isatty())


def may_move(console: Console) -> bool:
    """Whether lines may be drawn over: on a terminal that a person looks at.

    Not where TERM is `dumb`; not under CI, whose logs keep every frame.
    """
    return (
        on_terminal(console)
        and not console.is_dumb_terminal
        and os.environ.get("CI", "").lower() in {"", "0", "false"}
    )
