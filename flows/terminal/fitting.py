"""Tables that fit: which columns are shown, by what they hold and by the width there is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

EMPTY = "–"
BETWEEN = 2
"""Columns of characters between two of a table."""


class FittedTable(Table):
    """A table that is as wide as it is to be."""


@dataclass(frozen=True)
class Column:
    """A column of text. heading: may have several lines.

    rank: 0 is never left out; of the others those of the highest rank go first, the last of equals.
    folds: its texts may be broken into lines; it takes what room the others leave. styles: of a
    cell, by its text. asked: it is there also where nothing is in it.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = False
    folds: bool = False
    styles: Mapping[str, str] = field(default_factory=dict)
    asked: bool = False

    def drawn(self) -> list[str | Text]:
        """The cells as rich takes them."""
        return [
            Text(cell, self.styles[cell]) if cell in self.styles else cell for cell in self.cells
        ]

    @property
    def width(self) -> int:
        """In characters of a terminal."""
        return max(map(cell_len, [*self.heading.split("\n"), *self.cells]), default=0)

    @property
    def title(self) -> str:
        """Its heading on one line."""
        return self.heading.replace("\n", " ")


@dataclass(frozen=True)
class Fitted:
    """columns: that are shown, in their order. left_out: those with something in them that are not.

    Columns without anything in them are neither.
    """

    columns: Sequence[Column]
    left_out: Sequence[Column]

    def table(self, *, title: str | None = None) -> FittedTable:
        """As rich draws it."""
        table = FittedTable(
            title=title, title_justify="left", header_style="bold", box=None, pad_edge=False
        )
        for column in self.columns:
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                vertical="top" if any(one.folds for one in self.columns) else "bottom",
                no_wrap=not column.folds,
                overflow="fold" if column.folds else "crop",
            )
        for row in zip(*(column.drawn() for column in self.columns), strict=True):
            table.add_row(*row)
        return table


def fitted(columns: Sequence[Column], width: int | None) -> Fitted:
    """The columns that hold something, as many as go into `width` characters; None: all of them."""
    kept = [
        column
        for column in columns
        if {*column.cells} - {EMPTY, ""} or not column.rank or column.asked
    ]
    left_out: list[Column] = []
    while width is not None and _width(kept) > width:
        rank = max(column.rank for column in kept)
        if not rank:
            break
        worst = next(column for column in reversed(kept) if column.rank == rank)
        kept.remove(worst)
        left_out.append(worst)
    return Fitted(kept, [column for column in columns if column in left_out])


LEAST_FOLDED = 24
"""What a column that folds needs."""


_LABEL = re.compile(r"\s*\S+( \S+)?\s{2,}")
"""With which a line begins that says what of what: `store    file:///…`."""


def between_words(text: Text, width: int) -> Text:
    """The text in lines of that width that end between two words, those that follow set in.

    A word that is longer than a line stays whole, as an address or a path has to: the terminal
    breaks it, and what is copied there is in one piece.
    """
    lines = [piece for line in text.split("\n", allow_blank=True) for piece in _pieces(line, width)]
    return Text("\n").join(lines)


def _pieces(line: Text, width: int) -> list[Text]:
    plain = line.plain
    if cell_len(plain) <= width:
        return [line]
    label = _LABEL.match(plain)
    indent = len(plain) - len(plain.lstrip()) + 2
    if label is not None and label.end() <= width // 3:
        indent = label.end()
    start = room_before = 0
    cuts = []
    for word in re.finditer(r"\S+", plain):
        ends = room_before + cell_len(plain[start : word.end()])
        is_first = not plain[start : word.start()].strip()
        if ends > width and not is_first and cell_len(word.group()) <= width - indent:
            cuts.append(word.start())
            start, room_before = word.start(), indent
    first, *others = line.divide(cuts)
    first.rstrip()
    for piece in others:
        piece.rstrip()
        piece.pad_left(indent)
    return [first, *others]


def _width(columns: Sequence[Column]) -> int:
    widths = [
        min(column.width, LEAST_FOLDED) if column.folds else column.width for column in columns
    ]
    return sum(widths) + BETWEEN * max(0, len(widths) - 1)
