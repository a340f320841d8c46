"""The lines at a terminal's end that are drawn again and again, until they are gone.

They stay within the width, whatever that becomes, and leave nothing behind.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.control import Control
from rich.live import Live
from rich.live_render import LiveRender
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.text import Text

from epochal.flows.terminal.style import ACCENT, DRAWING, MOVING, QUIET, may_move

FRAMES_PER_S = 6.0
SIGNS, ASCII_SIGNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "-\\|/"
MARGIN = 5
"""Columns that stay free: `^C` is written behind the last line, and must not begin another."""
SHORTEST_BAR = 8
USUAL_BAR = 16
LONGEST_BAR = 50
SEPARATOR = " · "
INDENT, GAP = "  ", "  "
SHOW_AFTER_S = 0.3
"""What takes less is not announced."""


@dataclass(frozen=True)
class Row:
    """One line: what goes on, a bar if it is known how far it is, and numbers behind it.

    parts: texts that are packed into as many lines as they need. bar: what is done, of 1; left out
    where it would be short. spare: one more text, where there is room behind the bar.
    """

    label: str
    bar: float | None = None
    parts: Sequence[str] = ()
    spare: str = ""
    spins: bool = False

    def behind(self, *, spare: bool) -> str:
        """What stands behind the bar."""
        more = [self.spare] if spare and self.spare else []
        return SEPARATOR.join([*self.parts, *more])


class Region(Live):
    """Lines at the end of the terminal, drawn from `rows()` several times a second.

    They are gone when it ends. What is printed meanwhile, to standard output or error, stands above
    them; a standard output that is no terminal is left alone.
    """

    def __init__(self, console: Console, rows: Callable[[], Sequence[Row]]) -> None:
        self._lengths: list[int] = []
        self._width = console.width
        super().__init__(
            _Drawn(rows, self._lengths),
            console=console,
            transient=True,
            refresh_per_second=FRAMES_PER_S,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._lock = DRAWING  # one with the console's: two would be taken in either order

    def start(self, refresh: bool = False) -> None:  # noqa: FBT001, FBT002 - as rich has it
        """Draws them from now on."""
        self._live_render = LiveRender(self.renderable)  # of what was drawn before nothing is left
        super().start(refresh)
        MOVING[:] = [self]

    def stop(self) -> None:
        """Removes them."""
        MOVING.clear()
        super().stop()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Erases what was drawn, also where a narrower terminal has broken its lines anew."""
        width = self.console.width
        broken = sum(-(-length // width) - 1 for length in self._lengths if length > width)
        if width < self._width and broken:
            up: list[tuple[ControlType, int]] = [
                (ControlType.CURSOR_UP, 1),
                (ControlType.ERASE_IN_LINE, 2),
            ]
            renderables = [Control(*up * broken), *renderables]
        self._width = width
        return super().process_renderables(renderables)


class _Drawn:
    """Rows as lines. lengths: filled with the number of columns of each line."""

    def __init__(self, rows: Callable[[], Sequence[Row]], lengths: list[int]) -> None:
        self._rows = rows
        self._lengths = lengths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, none of them longer than the width allows."""
        width = max(options.max_width - MARGIN, 1)
        rows = self._rows()
        shape = _Shape.of(rows, width)
        self._lengths.clear()
        for row in rows:
            for number, line in enumerate(_lines(row, shape, console, options)):
                sign = _sign(options) if row.spins and not number else " "
                whole = [*_plain(sign.ljust(len(INDENT)), console, options, ACCENT), *line]
                whole = Segment.adjust_line_length(whole, width, pad=False)
                self._lengths.append(Segment.get_line_length(whole))
                yield from whole
                yield Segment.line()


@dataclass(frozen=True)
class _Shape:
    """How the rows with a bar are laid out. label, bar: columns; 0: each by itself."""

    width: int
    label: int = 0
    bar: int = 0
    spare: bool = False

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> _Shape:
        """One under the other where there is room, with what is to spare if there is more."""
        barred = [row for row in rows if row.bar is not None]
        label = max((len(row.label) for row in barred), default=0)
        for spare, least in ((True, USUAL_BAR), (False, SHORTEST_BAR)):
            behind = max((len(row.behind(spare=spare)) for row in barred), default=0)
            room = width - len(INDENT) - label - behind - 2 * len(GAP)
            if room >= least:
                return cls(width, label, min(room, LONGEST_BAR), spare)
        return cls(width)


def _lines(
    row: Row, shape: _Shape, console: Console, options: ConsoleOptions
) -> list[list[Segment]]:
    if row.bar is not None:
        behind = row.behind(spare=shape.spare)
        alone = shape.width - len(INDENT) - len(row.label) - len(behind) - 2 * len(GAP)
        room = shape.bar or min(alone, LONGEST_BAR)
        if room >= SHORTEST_BAR:
            before = _plain(row.label.ljust(shape.label) + GAP, console, options)
            bar = _bar(row.bar, room, console, options)
            return [[*before, *bar, *_plain(GAP + behind, console, options)]]
    texts = packed([row.label, *row.parts], shape.width - len(INDENT))
    return [_plain(text, console, options) for text in texts]


def _plain(text: str, console: Console, options: ConsoleOptions, style: str = "") -> list[Segment]:
    whole = Text(text, style=style, no_wrap=True, overflow="ignore", end="")
    return list(console.render(whole, options.update(no_wrap=True, overflow="ignore")))


def _bar(share: float, width: int, console: Console, options: ConsoleOptions) -> list[Segment]:
    bar = ProgressBar(
        total=1.0,
        completed=min(max(share, 0.0), 1.0),
        width=width,
        style=QUIET,
        complete_style=ACCENT,
        finished_style=ACCENT,
    )
    drawn = list(console.render(bar, options.update(width=width)))
    # Without colours it draws what is done, and nothing behind it.
    rest = width - Segment.get_line_length(drawn)
    return [*drawn, Segment((" " if options.ascii_only else "─") * rest)]


def packed(parts: Sequence[str], width: int) -> list[str]:
    """The parts in lines of at most `width` columns; empty ones are left out."""
    lines: list[str] = []
    for part in parts:
        if not part:
            continue
        if lines and len(lines[-1]) + len(SEPARATOR) + len(part) <= width:
            lines[-1] += SEPARATOR + part
        else:
            lines.append(part)
    return lines


def _sign(options: ConsoleOptions) -> str:
    """A spinner's frame of now."""
    frames = ASCII_SIGNS if options.ascii_only else SIGNS
    return frames[int(time.monotonic() * FRAMES_PER_S) % len(frames)]


@contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """A spinner with the text and the seconds while the block runs, if that may be drawn."""
    if not may_move(console):
        yield
        return
    since = time.monotonic()

    def rows() -> list[Row]:
        gone = time.monotonic() - since
        return [Row(text, parts=[f"{gone:.0f} s"], spins=True)] if gone > SHOW_AFTER_S else []

    with Region(console, rows):
        yield
