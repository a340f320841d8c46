"""Texts of users are data wherever they are shown: terminal, JSON, Markdown."""

import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.runs.project import call

from epochal.flows import console
from epochal.tasks.printable import markdown_code, printable, printable_json

HARD = st.text(
    alphabet=st.one_of(
        st.sampled_from(
            "[]/\\`|<>$*_~#!(){}:\n\r\t\x00\x07\x08\x1b\x7f\x9b\u202e\u2066\u200e\u2028"
        ),
        st.characters(categories=("L", "N", "P", "S", "Z", "C")),
    ),
    max_size=30,
)
ACTING = {
    *map(chr, range(32)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\ufeff",
}
ACTING |= {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
ACTING |= {chr(half) for half in range(0xD800, 0xE000)}
ACTING -= {"\n", "\t"}


@given(HARD)
@example("\x1b]0;owned\x07")
@example("a\r\nb")
def test_nothing_that_acts_is_left(text):
    shown = printable(text)
    assert not ACTING & {*shown}
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 猫 🦊 👨‍👩‍👧\tx\n", "Größe 猫 🦊 👨‍👩‍👧\tx\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("exe.\u202egpj", "exe.\\u202egpj"),
        ("\ud83e", "\\ud83e"),
        ("a\rb", "a\\rb"),
    ],
)
def test_what_people_read_stays_and_what_acts_is_written_out(text, shown):
    assert printable(text) == shown


def printed(make):
    """What a terminal of 300 columns gets, without the escapes of our own styles."""
    terminal = console.PlainConsole(file=io.StringIO(), width=300, force_terminal=False)
    make(terminal)
    return terminal.file.getvalue()


@given(HARD.filter(lambda text: "\t" not in text))  # a tab is drawn as spaces
@example("x[old]")
@example("[/x]")
@example("r[bold].html")
@example(":red_circle: :lt:")
def test_what_is_printed_is_the_text_and_no_markup(text):
    lines = printed(lambda terminal: terminal.print(text))
    assert lines == f"{printable(text)}\n"
    assert (
        printed(lambda terminal: terminal.print(console.line(("=", "cyan"), text))) == f"={lines}"
    )


@given(HARD.filter(lambda text: text.isprintable() and text.strip() == text and text.isascii()))
def test_tables_show_cells_headings_and_titles_as_they_are(text):
    table = console.plain_table([text, "b"], [["x" * len(text), text]])
    shown = printed(lambda terminal: terminal.print(table))
    assert all(text in line for line in shown.splitlines())


def test_no_escape_of_a_users_text_reaches_the_terminal(capsys, monkeypatch):
    for name in ("out", "err"):
        monkeypatch.setattr(console, name, console.PlainConsole(stderr=name == "err"))
    console.say_error("\x1b]0;owned\x07[/x]")
    console.say_note("\x1b[2J[bold]")
    shown = capsys.readouterr().err
    assert shown == "error: \\x1b]0;owned\\x07[/x]\nnote: \\x1b[2J[bold]\n"
    done = call("show", "--\x1b]0;owned\x07")
    assert done.code == 2
    assert "\x1b" not in done.err


@given(HARD)
def test_json_holds_the_same_text_without_what_acts(text):
    plain = json.dumps({text: [text]}, ensure_ascii=False)
    shown = printable_json(plain)
    assert json.loads(shown) == json.loads(plain)
    assert not ACTING & {*shown}


@given(HARD)
@example("`")
@example("``` | <script> [x](http://y)")
def test_code_in_markdown_ends_where_the_text_does(text):
    code = markdown_code(text)
    fence = code[: len(code) - len(code.lstrip("`"))]
    assert code.endswith(fence)
    assert "\n" not in code
    inside = code[len(fence) : -len(fence)]
    assert fence not in inside
    assert inside.strip() == printable(text).replace("\n", "\\n").strip()
