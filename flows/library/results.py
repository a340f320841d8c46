"""What the functions give: the dict that `--json` prints, which a notebook shows as a table."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from epochal.flows import console

if TYPE_CHECKING:
    import pandas as pd

SHOWN_ROWS = 40
"""Of a longer table a notebook and a console show the first and the last half as many."""
_WIDTH = 400  # nothing is wrapped: a notebook scrolls, and a console wraps by itself


class Result(dict[str, Any]):
    """A command's `--json` as a dict, with the table that the command prints.

    In a notebook the table is shown, with links; in a console it is plain text. What it holds is
    reached as in any dict, and `json.dumps` writes it.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        title: str,
        rows: Iterable[Mapping[str, Any]],
        lines: Sequence[str] = (),
        index: str | None = None,
    ) -> None:
        """rows: of the table, one mapping of column → value each. lines: what stands below it.

        index: the column that names the rows of `to_pandas()`.
        """
        super().__init__(values)
        self._title, self._rows, self._lines = title, [dict(row) for row in rows], tuple(lines)
        self._index = index

    def to_pandas(self) -> pd.DataFrame:
        """The whole table as a DataFrame; NaN or None where there is nothing."""
        import pandas as pd

        frame = pd.DataFrame(self._rows, columns=self._columns)
        return frame.set_index(self._index) if self._index in frame else frame

    def __repr__(self) -> str:
        written = io.StringIO()
        plain = console.PlainConsole(file=written, width=_WIDTH, color_system=None)
        plain.print(self._title)
        plain.print(console.plain_table(self._columns, self._cells()))
        for line in self._lines:
            plain.print(line)
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in self._cells()
        )
        below = "".join(f"<div>{_with_links(line)}</div>" for line in self._lines)
        return (
            f"<div><strong>{escape(self._title)}</strong></div>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{below}"
        )

    @property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def _cells(self) -> list[list[str]]:
        """The table as texts, its middle left out where it is long."""
        columns = self._columns
        cells = [[_as_text(row.get(name)) for name in columns] for row in self._rows]
        left_out = len(cells) - SHOWN_ROWS
        if left_out <= 0:
            return cells
        half = SHOWN_ROWS // 2
        middle = [f"… {left_out} more", *("…" for _ in columns[1:])]
        return [*cells[:half], middle, *cells[-half:]]


def _as_text(value: Any) -> str:
    if value is None:
        return console.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return console.number(value)
    if isinstance(value, list | tuple):
        return "; ".join(map(_as_text, value)) or console.NOTHING
    return str(value)


def _with_links(line: str) -> str:
    """The line for a page, its addresses as links. Nothing in it is markup."""
    parts = re.split(r"(https?://[^\s()<>\"']+)", line)
    return "".join(
        f'<a href="{escape(part)}" target="_blank" rel="noopener">{escape(part)}</a>'
        if place % 2
        else escape(part)
        for place, part in enumerate(parts)
    )


@contextmanager
def threads_kept() -> Iterator[None]:
    """Puts torch's number of threads back at the end: a config's `threads` is set for a process."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
