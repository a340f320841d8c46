"""What docs/goodput.md says is so: the causes, the fields of the file, the names in MLflow."""

import re
from dataclasses import fields

from support.pages import DOCS, rows

from epochal.tasks.goodput.device import _PEAKS
from epochal.tasks.goodput.run import goodput_points, shown
from epochal.tasks.goodput.stopwatch import CAUSES
from epochal.tasks.goodput.totals import Totals

PAGE = DOCS["goodput.md"]


def test_the_page_has_every_cause_in_order():
    assert [cells[0].strip("`") for cells in rows(PAGE, "cause")] == list(CAUSES)


def test_the_page_has_every_field_of_the_file_and_of_json():
    told = re.findall(r"`(\w+)`", " ".join(cells[0] for cells in rows(PAGE, "field")))
    assert sorted(told) == sorted(field.name for field in fields(Totals))
    for name in shown(Totals()):
        assert f"`{name}`" in PAGE, name


def test_the_page_has_every_name_in_mlflow():
    class Record:
        stage = "train"

    whole = Totals(dict.fromkeys(CAUSES, 1.0), samples=1)
    told = " ".join(cells[0] for cells in rows(PAGE, "name"))
    for name in goodput_points(Record, whole):
        cause = name.removeprefix("goodput/").removesuffix("_seconds")
        assert f"`{name}`" in told or cause in CAUSES, name


def test_the_page_has_every_device_that_is_listed():
    for name, _ in _PEAKS:
        assert name.split()[1].split("-")[0] in PAGE
