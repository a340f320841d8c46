"""`epochal report`: one page with all in it, whatever the run is called, wherever its store is."""

import base64
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from matplotlib.colors import to_rgb
from PIL import Image
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.tasks.printable import printable
from epochal.tasks.report.curves import Curve
from epochal.tasks.report.figures import DARK, LIGHT
from epochal.tasks.report.page import Section, Table, render, report_html
from epochal.tasks.report.svg_chart import line_chart
from epochal.tasks.runs.find_run import find_run

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.test/x onerror=alert(2)> $x_"


class Reader(HTMLParser):
    """Tags, their attributes and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self._open = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in {"meta", "img", "source"}:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(page):
    """The page read, once it is sure that it fetches and runs nothing."""
    found = Reader(page)
    assert found._open == []
    assert set(found.tags).isdisjoint({"script", "link", "iframe", "object", "a", "form", "base"})
    for name, value in found.attributes:
        assert not name.startswith("on"), name
        if name in {"src", "srcset", "href", "action", "data", "poster"}:
            assert value.startswith("data:image/png;base64,")
    style = re.search(r"<style>(.*?)</style>", page, flags=re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert ("http-equiv", "Content-Security-Policy") in found.attributes
    return found


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=3)


IMAGES = {
    "train_data": {"target": "pictures:pictures", "args": {"split": "train"}},
    "validation_data": {"target": "pictures:pictures", "args": {"split": "validation"}},
    "model": {"target": "pictures:Net"},
}
PICTURES = """
    from torch import nn
    from torch.utils.data import TensorDataset
    from blobs import blobs

    def pictures(split):
        x, y = blobs(split).tensors
        return TensorDataset(x.reshape(-1, 1, 2, 3), y)

    def Net():
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
"""


def written(project, *options, out="report.html", run=None):
    place = project.folder / out
    done = call("report", str(run or project.config), "--out", str(place), *options, "--json")
    assert done.code == 0, done.err
    page = place.read_text()
    assert done.json == {"run": "blobs", "file": str(place), "bytes": len(page.encode())}
    return page


def test_the_page_has_every_part_and_is_the_same_each_time(project):
    project.write("pictures.py", PICTURES)
    config = yaml.safe_load(project.config.read_text())
    project.config.write_text(yaml.safe_dump({**config, **IMAGES}))
    run = BareRun(project.config)()
    objects = sorted(project.store.rglob("*.*"))
    page = written(project)
    found = checked(page)
    for heading in (
        "blobs", "Loss by epoch", "validation/accuracy", "Epochs", "Training loss by update",
        "Learning rate", "Gradient norm", "Gradient norm by group", "Kept samples", "Data map",
        "Hardest samples", "Perhaps mislabelled", run.weights,
    ):  # fmt: skip
        assert heading in found.text, heading
    assert found.tags.count("picture") == 4  # kept samples, data map, two contact sheets
    assert "The share for an epoch is planned" in "".join(found.text)
    _is_in_both_themes(page)
    _has_the_losses_of(run, page)
    assert any("estimated share of wrong labels: " in text for text in found.text)
    assert page == written(project, out="again.html")
    assert sorted(project.store.rglob("*.*")) == objects


def _is_in_both_themes(page):
    """The dark picture stands under the page's condition of darkness, and the light one else."""
    png = 'data:image/png;base64,([^"]+)'
    pairs = re.findall(
        rf'<source srcset="{png}" media="\(prefers-color-scheme: dark\)">\s*<img src="{png}"', page
    )
    assert len(pairs) == 4
    for pair in pairs:
        for data, theme in zip(pair, (DARK, LIGHT), strict=True):
            corner = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((0, 0))
            assert corner == tuple(round(255 * part) for part in to_rgb(theme.paper))


def _has_the_losses_of(run, page):
    """Each loss in the chart, at its epoch, and its curve's colour in the legend."""
    card = re.search(r"<h2>Loss by epoch</h2>.*?</section>", page, flags=re.DOTALL).group(0)
    for record in run.view.records.values():
        if record.stage == "train":
            assert f"train/loss at {record.epoch}: {record.values['loss']:.6g}<" in card
        if record.stage == "validate":
            loss = record.values["metrics"]["loss"]
            assert f"validation/loss at {record.epoch}: {loss:.6g}<" in card
    for name, colour in (("train/loss", "c0"), ("validation/loss", "c1")):
        assert re.search(rf'<i class="{colour}"></i>{name}<', card)
        assert re.search(rf'<circle class="{colour}"[^>]*><title>{name} at 0:', card)


def test_without_images_the_samples_are_a_table_and_the_reason_is_said(project):
    BareRun(project.config)()
    found = checked(written(project))
    assert found.tags.count("picture") == 2
    assert any("No pictures: train_data: sample " in text for text in found.text)


def test_a_store_that_was_moved_to_where_its_code_is_not_gives_the_page(project, tmp_path):
    BareRun(project.config, sampling="{policy: none}")()
    moved = tmp_path / "moved"
    shutil.move(project.store, moved)
    (project.folder / "blobs.py").unlink()
    found = checked(written(project, "--store", str(moved), run="blobs"))
    assert "Data map" in found.text
    assert "Kept samples" not in found.text  # nothing mined
    assert any("built by a config of yours, never by what a store says" in x for x in found.text)


def test_a_data_set_that_cannot_be_built_is_said_and_the_rest_is_there(project):
    BareRun(project.config)()
    project.write("blobs.py", "raise RuntimeError('the shelf is empty')")
    found = checked(written(project))
    assert any("No pictures: train_data" in one and "shelf" in one for one in found.text)
    assert {"Data map", "Kept samples"} <= set(found.text)


def test_a_run_without_a_finished_epoch_has_a_page(project):
    run = BareRun(project.config)
    run.run.run_stage(run.view.stages[0])
    found = checked(written(project))
    assert "the last epoch is not trained yet" in found.text


def test_a_damaged_table_is_said_in_its_place_and_the_rest_is_there(project):
    run = BareRun(project.config)()
    record = run.view.record_of(run.view.stages[-1])
    path = project.store / "stages" / record.key / record.artifacts["samples"].file
    path.write_bytes(path.read_bytes()[:-9] + b"not as it")
    found = checked(written(project))
    assert any("samples" in text and "digest" in text for text in found.text)
    assert {"Loss by epoch", "Gradient norm"} <= set(found.text)


def test_hostile_names_are_text(project):
    BareRun(project.config)()
    found = find_run(str(project.config))
    config = {**found.plan.config, "name": HOSTILE, "tracking": {"uri": "http://me:secret@x/y"}}
    plan = found.plan.model_copy(update={"run": HOSTILE, "config": config})
    records = {
        key: replace(
            one,
            values={**one.values, "metrics": {**one.values["metrics"], HOSTILE: 0.5, "big": 7.0}},
        )
        if one.stage == "validate"
        else one
        for key, one in found.records.items()
    }
    hostile = replace(found, plan=plan, records=records)
    page = report_html(hostile, images=HOSTILE)
    seen = checked(page)
    text = "".join(seen.text)
    assert text.count("<script>alert(1)</script>") >= 5  # shown, each time
    assert "secret" not in page
    assert "http://me:…@x/y" in text


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(home):
    for out, problem in (
        ("a.pdf", "expected a name that ends with .html"),
        ("nowhere/a.html", "there is no folder nowhere; make it first"),
    ):
        done = call("report", "blobs", "--out", out)
        assert done.code == 2
        assert problem in " ".join(done.err.split())


@pytest.mark.parametrize("template", ["page.html", "line_chart.svg"])
def test_a_value_that_a_template_asks_for_and_nobody_gave_is_an_error(template):
    with pytest.raises(UndefinedError, match="is undefined"):
        render(template)


TEXTS = st.text(
    alphabet=st.one_of(st.sampled_from("<>&\"'{}%#/=;!-[]"), st.characters()), max_size=20
)


@given(TEXTS)
@example(HOSTILE)
@example("{{ 7 * 7 }}{% raw %}")
@example("</title></style></svg>-->")
@example("\x1b]0;x\x07\u202e\ud800\x00")
def test_every_text_on_the_page_is_text_and_nothing_else(text):
    words = f"a{text}z"
    curves = [Curve(words, [0, 1], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]) for _ in range(2)]
    section = Section(
        words, note=words, chart=line_chart(curves, x_label=words), summary=words, problem=words,
        table=Table([words], [[words]]),
    )  # fmt: skip
    empty = Section("", chart=line_chart(curves, x_label="x"), summary="s", table=Table([], [[]]))
    values = {"generation": 1, "title": words, "heading": words, "config": words}
    page = render("page.html", facts=[(words, words)], sections=[section], **values)
    page.encode()
    found = checked(page)
    plain = render("page.html", facts=[("", "")], sections=[empty], **dict.fromkeys(values, ""))
    assert {*found.tags} <= {*Reader(plain).tags, "p", "th", "td"}
    shown = printable(words)
    assert "".join(found.text).count(shown) >= 11
    assert [value for name, value in found.attributes if name == "aria-label"] == [
        f"{shown}, {shown}"
    ]
