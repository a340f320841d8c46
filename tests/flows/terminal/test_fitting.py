"""Which columns of a table are shown: those that hold something, as far as there is room."""

import io

import pytest
from rich.text import Text

from epochal.flows.console import PlainConsole
from epochal.flows.terminal.fitting import Column, between_words, fitted

COLUMNS = [
    Column("epoch", ["0", "1"], right=True),
    Column("loss", ["0.5123", "0.4"], 1, right=True),
    Column("gradient\nnorm", ["0.7", "0.6"], 2, right=True),
    Column("cached", ["–", "–"], 1),
    Column("samples", ["180", "–"], 2),
]


def titles(columns):
    return [column.title for column in columns]


def test_a_column_without_anything_in_it_is_no_column():
    assert titles(fitted(COLUMNS, None).columns) == ["epoch", "loss", "gradient norm", "samples"]
    assert fitted(COLUMNS, None).left_out == []
    assert titles(fitted([Column("epoch", [])], None).columns) == ["epoch"]


@pytest.mark.parametrize(
    ("width", "gone"),
    [(32, []), (31, ["samples"]), (23, ["samples"]), (22, ["gradient norm", "samples"]),
     (12, ["loss", "gradient norm", "samples"]), (1, ["loss", "gradient norm", "samples"])],
)  # fmt: skip
def test_where_it_is_narrow_those_of_the_highest_rank_go_first(width, gone):
    assert titles(fitted(COLUMNS, width).left_out) == gone


def test_numbers_stand_at_the_right_and_long_texts_fold():
    columns = [
        *COLUMNS[:2],
        Column("why", ["one reason and another one and a third", ""], folds=True),
    ]
    console = PlainConsole(file=io.StringIO(), width=40)
    console.print(fitted(columns, 40).table(title="run x"), soft_wrap=False)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "run x",
        "epoch    loss  why",
        "    0  0.5123  one reason and another",
        "               one and a third",
        "    1     0.4",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short enough", ["short enough"]),
        ("a sentence of more words here", ["a sentence of more", "  words here"]),
        ("store    a b c d e f g h", ["store    a b c d e f", "  g h"]),
        ("  set in and too long for it", ["  set in and too", "    long for it"]),
        ("log /a/path/that/is/longer and more", ["log /a/path/that/is/longer", "  and more"]),
        ("one\n\ntwo", ["one", "", "two"]),
    ],
)  # fmt: skip
def test_a_line_ends_between_two_words_and_no_word_is_cut(text, lines):
    assert between_words(Text(text), 20).plain.split("\n") == lines


def test_a_text_below_a_label_stands_below_its_beginning():
    found = between_words(Text("loss      0.25, a quarter of the median before it"), 36)
    assert found.plain.split("\n") == [
        "loss      0.25, a quarter of the", "          median before it",
    ]  # fmt: skip


def test_a_broken_line_keeps_its_colours():
    found = between_words(Text.assemble(("mark:", "red"), " and many words more"), 12)
    assert [(found.plain[span.start : span.end], span.style) for span in found.spans] == [
        ("mark:", "red")
    ]
