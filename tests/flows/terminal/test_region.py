"""The lines that move at the terminal's end: what a person sees of them, at any width."""

import io
import threading

import pytest
from support.screen import Screen

from epochal.flows.console import PlainConsole
from epochal.flows.terminal import region
from epochal.flows.terminal.region import MARGIN, Region, Row, packed, waiting

ROWS = [
    Row("validate · epoch 11", 0.4, ["163 of 400", "ETA 0:06"], spins=True),
    Row("", parts=["loss 0.4123", "rate 2.90e-03", "norm 0.812", "12,340 samples/s"]),
    Row("run", 0.25, ["3 of 12 epochs", "ETA 1:02:33"], spare="0:12 elapsed"),
]
TEXTS = [text for row in ROWS for text in (row.label, *row.parts) if text]


class Terminal(io.StringIO):
    """Standard error of a person."""

    def isatty(self):
        return True


def console_of(width, **options):
    return PlainConsole(file=Terminal(), width=width, force_terminal=True, **options)


def written(console):
    text = console.file.getvalue()
    console.file.seek(0)
    console.file.truncate()
    return text


def seen(width, rows=ROWS, **options):
    """The lines on the screen while the region is there."""
    console, screen = console_of(width, **options), Screen(width)
    with Region(console, lambda: rows) as drawn:
        drawn.refresh()
        screen.write(written(console))
        return screen.shown


@pytest.mark.parametrize("width", [40, 60, 79, 80, 120, 200])
def test_nothing_is_cut_and_nothing_wraps_at_any_width(width):
    lines = seen(width)
    assert max(map(len, lines)) <= width - MARGIN
    assert all(text in "\n".join(lines) for text in TEXTS)


@pytest.mark.parametrize("width", [60, 70, 80, 100, 200])
def test_a_bar_is_a_bar_or_none(width):
    bars = [sum(line.count(sign) for sign in "━╸╺") for line in seen(width)]
    assert all(length == 0 or length >= region.SHORTEST_BAR for length in bars)
    assert any(bars)


def test_what_is_to_spare_is_there_where_there_is_room():
    assert "0:12 elapsed" not in "\n".join(seen(60))
    assert "0:12 elapsed" in "\n".join(seen(120))


def test_bars_stand_one_under_the_other():
    first, last = (line.index("━") for line in seen(80) if "━" in line)
    assert first == last


def test_without_unicode_the_signs_are_of_ascii():
    class Ascii(Terminal):
        encoding = "ascii"

    console = PlainConsole(file=Ascii(), width=80, force_terminal=True)
    with Region(console, lambda: [Row("reading", 0.5, ["1 of 2"], spins=True)]) as drawn:
        drawn.refresh()
        assert written(console).isascii()


@pytest.mark.parametrize("keys", ["", "^C", "^C^C"])
def test_nothing_of_it_is_left_behind(keys):
    console, screen = console_of(80), Screen(80)
    with Region(console, lambda: ROWS) as drawn:
        drawn.refresh()
        console.print("a line above")
        screen.write(written(console))
        screen.write(keys)  # what the terminal itself writes where the cursor stands
    screen.write(written(console))
    assert screen.shown == ["a line above"]


def test_results_on_standard_output_stand_above_it_too():
    console, screen = console_of(80), Screen(80)
    out = console_of(80)
    out.file = console.file  # both are the same terminal
    with Region(console, lambda: ROWS) as drawn:
        drawn.refresh()
        out.print("a result")
        drawn.refresh()
        screen.write(written(console))
        assert screen.shown[0] == "a result"
        assert len(screen.shown) == 1 + 3
    screen.write(written(console))
    assert screen.shown == ["a result"]


@pytest.mark.parametrize("narrower", [60, 45, 30])
def test_a_window_that_becomes_narrower_leaves_nothing_behind(narrower):
    console, screen = console_of(120), Screen(120)
    with Region(console, lambda: ROWS) as drawn:
        console.print("a line above")
        drawn.refresh()
        screen.write(written(console))
        screen.narrow(narrower)
        console.width = narrower
        drawn.refresh()
        screen.write(written(console))
        assert len([line for line in screen.shown if "epoch 11" in line]) == 1
        assert max(map(len, screen.shown)) <= narrower - MARGIN
    screen.write(written(console))
    assert screen.shown == ["a line above"]


def test_a_frame_of_another_thread_does_not_come_between_a_line_and_its_writing():
    console, screen, rows, others = console_of(80), Screen(80), list(ROWS[2:]), []

    class Slow:
        """While it is drawn, another thread draws a higher frame."""

        def __rich_console__(self, console, options):
            rows[:] = ROWS
            others.append(threading.Thread(target=drawn.refresh))
            others[0].start()
            others[0].join(0.5)
            yield "of the user's code"

    with Region(console, lambda: rows) as drawn:
        console.print(Slow())
        others[0].join()
    screen.write(written(console))
    assert screen.shown == ["of the user's code"]


def test_a_long_word_is_one_line_and_the_others_are_packed():
    assert packed(["a" * 30, "b", "", "c"], 10) == ["a" * 30, "b · c"]


def test_a_wait_shows_its_text_and_leaves_nothing(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(region, "SHOW_AFTER_S", -1.0)
    console, screen = console_of(80), Screen(80)
    with waiting(console, "starting the servers"):
        console.print("a line above")
        screen.write(written(console))
        assert screen.shown[-1].endswith("starting the servers · 0 s")
    screen.write(written(console))
    assert screen.shown == ["a line above"]


def test_nothing_moves_in_a_file_whatever_is_said_of_colours(monkeypatch):
    monkeypatch.setattr(region, "SHOW_AFTER_S", -1.0)
    console = PlainConsole(file=io.StringIO(), force_terminal=True)
    with waiting(console, "starting"):
        console.print("a line")
    assert console.file.getvalue() == "a line\n"
