"""Colours that can be read on any ground, and where lines may be drawn over."""

import io

import pytest
from rich.color import Color

from epochal.flows.console import PlainConsole
from epochal.flows.terminal import style
from epochal.flows.terminal.style import may_move


class Terminal(io.StringIO):
    def isatty(self):
        return True


def luminance(colour):
    """Relative luminance of sRGB, WCAG 2.2."""
    parts = [one / 255 for one in Color.parse(colour).get_truecolor()]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(share * one for share, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", [style.GOOD, style.NOTE, style.BAD, style.QUIET, style.ACCENT])
def test_a_colour_can_be_read_on_white_and_on_black(colour):
    found = luminance(colour.split()[-1]) + 0.05
    assert min(1.05 / found, found / 0.05) >= 4.3


def console(monkeypatch, *, file=None, **variables):
    for name in ("CI", "TERM", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return PlainConsole(file=file or Terminal())


def test_lines_move_on_a_terminal_alone(monkeypatch):
    assert may_move(console(monkeypatch))
    assert may_move(console(monkeypatch, NO_COLOR="1"))
    assert may_move(console(monkeypatch, CI="false"))
    assert not may_move(console(monkeypatch, CI="true"))
    assert not may_move(console(monkeypatch, TERM="dumb"))
    assert not may_move(console(monkeypatch, file=io.StringIO()))
    assert not may_move(console(monkeypatch, file=io.StringIO(), FORCE_COLOR="1"))


def shown(made):
    from epochal.flows.console import line

    made.print(line(("✓", style.GOOD), " done"))
    return made.file.getvalue()


def test_colours_go_where_they_are_asked_for_and_nowhere_else(monkeypatch):
    assert "\x1b[" in shown(console(monkeypatch))
    assert shown(console(monkeypatch, NO_COLOR="1")) == "✓ done\n"
    assert shown(console(monkeypatch, file=io.StringIO())) == "✓ done\n"
    assert "\x1b[" in shown(console(monkeypatch, file=io.StringIO(), FORCE_COLOR="1"))
