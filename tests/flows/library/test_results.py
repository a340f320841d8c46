"""What the functions give: a dict, and a table for who looks at it."""

import copy
import json

import pandas as pd
import pytest

from epochal.flows.library.results import SHOWN_ROWS, Result


def made(rows=(), **options):
    return Result({"run": "one", "metrics": {"a": 1.0}}, title="run one", rows=rows, **options)


@pytest.fixture
def two():
    rows = [
        {"epoch": 0, "loss": 0.123456, "cached": True, "why": ["a: 1 → 2", "b"]},
        {"epoch": 1, "loss": None, "cached": False, "why": [], "more": "x"},
    ]
    return made(rows, lines=["Prefect  http://127.0.0.1:4200/runs?a=1&b=2", "store    /tmp/s"])


def test_it_is_the_dict_that_it_was(two):
    assert two == {"run": "one", "metrics": {"a": 1.0}}
    assert two["metrics"] is not None
    assert json.loads(json.dumps(two)) == {"run": "one", "metrics": {"a": 1.0}}
    assert copy.deepcopy(two).to_pandas().equals(two.to_pandas())


def test_a_console_shows_the_table_as_text(two):
    assert repr(two).splitlines() == [
        "run one",
        "epoch  loss    cached  why          more",
        "0      0.1235  yes     a: 1 → 2; b  –",
        "1      –       no      –            x",
        "Prefect  http://127.0.0.1:4200/runs?a=1&b=2",
        "store    /tmp/s",
    ]


def test_a_notebook_shows_a_table_whose_addresses_are_links(two):
    page = two._repr_html_()
    assert "<th>epoch</th><th>loss</th>" in page
    assert "<td>0</td><td>0.1235</td><td>yes</td>" in page
    url = "http://127.0.0.1:4200/runs?a=1&amp;b=2"
    assert f'<a href="{url}" target="_blank" rel="noopener">{url}</a>' in page


def test_no_text_of_a_run_is_markup_in_a_notebook():
    bad = "<img src=x onerror=alert(1)>"
    result = Result(
        {}, title=bad, rows=[{bad: bad}], lines=[bad, f'http://x/"onclick="{bad}', f"http://{bad}"]
    )
    page = result._repr_html_()
    assert "<img" not in page
    assert 'onclick="' not in page


def test_no_text_of_a_run_speaks_to_the_terminal():
    result = made([{"name": "\x1b[2J[red]x[/red]"}])
    assert "\x1b" not in repr(result)
    assert "[red]x[/red]" in repr(result)


def test_a_table_is_a_data_frame_with_numbers_as_numbers(two):
    frame = two.to_pandas()
    assert frame.columns.tolist() == ["epoch", "loss", "cached", "why", "more"]
    assert frame["loss"].dtype == "float64"
    assert pd.isna(frame["loss"][1])
    assert made([{"id": 5, "x": 1}], index="id").to_pandas().index.tolist() == [5]


def test_a_table_without_rows_is_shown_and_is_a_frame():
    assert repr(made()).splitlines() == ["run one"]
    assert made(index="epoch").to_pandas().empty
    assert "<table>" in made()._repr_html_()


def test_of_a_long_table_the_middle_is_left_out_but_not_in_the_frame():
    result = made([{"number": number, "x": 0} for number in range(SHOWN_ROWS + 10)])
    assert len(repr(result).splitlines()) == 2 + SHOWN_ROWS + 1
    assert "… 10 more" in repr(result)
    assert len(result.to_pandas()) == SHOWN_ROWS + 10
