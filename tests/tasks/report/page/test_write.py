"""`epochal report`: one page with all in it, whatever runs are called, wherever their store is."""

import base64
import io
import re
import shutil
from dataclasses import replace

import pytest
import yaml
from PIL import Image
from support.page_reader import HOSTILE, checked
from support.runs.bare_run import BareRun, copy_of, finished_project, unfinished_project
from support.runs.project import Project, call

from epochal.data.errors import CorruptObject, InputError
from epochal.tasks.report.page.shown_run import ShownRun
from epochal.tasks.report.page.write import report_html
from epochal.tasks.runs import open_epoch as open_epochs
from epochal.tasks.runs.find_run import find_run
from epochal.tasks.runs.open_epoch import open_epoch


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_project(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def trained(finished, tmp_path, home):
    """A project whose run of two epochs is done, of its own for each test."""
    return copy_of(finished, tmp_path / "project", epochs=2)


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
        "blobs", "Loss", "validation/accuracy", "Epochs", "Learning rate", "Gradient norm",
        "Gradient norm by group", "Kept samples", "Goodput: seconds by cause", "Lineage",
        "Data map", "Hardest samples", "Perhaps mislabelled", run.weights,
    ):  # fmt: skip
        assert heading in found.text, heading
    drawn = found.charts["roots"]
    assert len(drawn) == 9
    assert {*drawn.values()} <= {value for name, value in found.attributes if name == "id"}
    assert found.tags.count("img") == 48
    assert any("The share of the samples that an epoch trains on" in text for text in found.text)
    _shows_the_images(page)
    _tells_each_picture_in_words(found)
    _has_the_losses_of(run, found)
    assert any("estimated share of wrong labels: " in text for text in found.text)
    assert len(page.encode()) < 2_500_000
    assert page == written(project, out="again.html")
    assert sorted(project.store.rglob("*.*")) == objects


def _shows_the_images(page):
    sources = re.findall('<img src="data:image/png;base64,([^"]+)"', page)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in sources]
    assert {image.size for image in images} == {(3, 2)}
    assert {image.mode for image in images} == {"RGB"}


def _tells_each_picture_in_words(found):
    labels = [value for name, value in found.attributes if name == "aria-label"]
    assert any(
        re.match(r"Loss: train/loss of updates from [\d.]+ to [\d.]+", one) for one in labels
    )
    texts = [value for name, value in found.attributes if name == "alt"]
    assert len(texts) == 48
    caption = r"\d+, label \d, predicted \d, (loss|AUM) -?[\d.e-]+"
    assert [one for one in texts if not re.fullmatch(caption, one)] == []


def _has_the_losses_of(run, found):
    """The numbers of a curve's table are those of the records."""
    table = found.tables["Numbers of: Loss"]
    for name, stage, value in (
        ("train/loss of epochs", "train", lambda record: record.values["loss"]),
        ("validation/loss", "validate", lambda record: record.values["metrics"]["loss"]),
    ):
        records = sorted(
            (one for one in run.view.records.values() if one.stage == stage),
            key=lambda record: record.epoch,
        )
        values = [value(record) for record in records]
        row = next(cells for cells in table if cells[0] == name)
        assert row[1:3] == [f"{values[0]:.6g}", f"{values[-1]:.6g}"]
        assert (row[3], row[5]) == (f"{min(values):.6g}", f"{max(values):.6g}")
        assert row[7] == "3"


def test_without_images_the_samples_are_a_table_and_the_reason_is_said(trained):
    found = checked(written(trained))
    assert "img" not in found.tags
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


def test_a_data_set_that_cannot_be_built_is_said_and_the_rest_is_there(trained):
    trained.write("blobs.py", "raise RuntimeError('the shelf is empty')")
    found = checked(written(trained))
    assert any("No pictures: train_data" in one and "shelf" in one for one in found.text)
    assert {"Data map", "Kept samples"} <= set(found.text)


def test_a_run_without_a_finished_epoch_has_a_page(project):
    run = BareRun(project.config)
    run.run.run_stage(run.view.stages[0])
    found = checked(written(project))
    assert "the last epoch is not trained yet" in found.text


def test_what_is_committed_of_an_epoch_that_is_not_done_is_drawn_and_said(tmp_path, home):
    project = unfinished_project(tmp_path)
    found = find_run("blobs", store=str(project.store))
    seen = checked(report_html([ShownRun(found)]))
    rows = {row[0]: row for row in seen.tables["Numbers of: Loss"]}
    losses = open_epoch(found).metrics["train/loss"]
    assert rows["train/loss of updates"][2] == f"{losses[-1]:.6g}"
    assert rows["train/loss of updates"][7] == "10"
    assert rows["train/loss of epochs"][7] == "1"
    assert any(text.startswith("Epoch 1 is at update 4 of 6, as of its ") for text in seen.text)
    assert "epoch 1 is at update 4 of 6" in seen.text
    extents = seen.charts["extents"]
    assert (extents["update"][1], extents["samples"][1]) == (10, 180 + 128)
    assert extents["epoch"][1] == pytest.approx(1 + 4 / 6)


def test_a_commit_that_is_no_epochs_is_said_and_the_rest_is_there(tmp_path, home, monkeypatch):
    project = unfinished_project(tmp_path)
    monkeypatch.setattr(open_epochs, "read_recorded", lambda _: _raise("its rows are no rows"))
    found = find_run("blobs", store=str(project.store))
    seen = checked(report_html([ShownRun(found)]))
    assert any("is left out: its rows are no rows" in text for text in seen.text)
    assert {"Loss", "Gradient norm"} <= set(seen.text)


def _raise(text):
    raise CorruptObject(text)


def test_a_damaged_table_is_said_in_its_place_and_the_rest_is_there(trained):
    run = find_run(str(trained.config))
    record = run.record_of(run.stages[-1])
    path = trained.store / "stages" / record.key / record.artifacts["samples"].file
    path.write_bytes(path.read_bytes()[:-9] + b"not as it")
    found = checked(written(trained))
    assert any("samples" in text and "digest" in text for text in found.text)
    assert {"Loss", "Gradient norm"} <= set(found.text)


def test_hostile_names_are_text(trained):
    found = find_run(str(trained.config))
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
    page = report_html([ShownRun(hostile, images=HOSTILE)])
    seen = checked(page)
    text = "".join(seen.text)
    assert text.count("<script>alert(1)</script>") >= 5  # shown, each time
    assert len(seen.scripts) == 3
    assert "secret" not in page
    assert "http://me:…@x/y" in text


def test_several_runs_lie_over_each_other_and_what_differs_is_told(trained):
    BareRun(trained.config, epochs=1, optimizer__args__lr=0.02)()
    place = trained.folder / "both.html"
    store = ["--store", str(trained.store), "--out", str(place)]
    done = call("report", "blobs@1", "blobs@2", *store, "--json")
    assert done.code == 0, done.err
    assert done.json["runs"] == ["blobs", "blobs"]
    found = checked(place.read_text())
    assert found.tables["What differs"] == [
        ["", "blobs@1", "blobs@2"],
        ["epochs", "2", "1"],
        ["optimizer.args.lr", "0.01", "0.02"],
    ]
    rates = {row[1]: row[3] for row in found.tables["Numbers of: Learning rate"]}
    assert rates == {"run": "last", "blobs@1": "0.01", "blobs@2": "0.02"}
    losses = {tuple(row[:2]) for row in found.tables["Numbers of: Loss"][1:]}
    assert losses >= {("validation/loss", "blobs@1"), ("validation/loss", "blobs@2")}
    summed = {row[0]: row[1:] for row in found.tables["Runs"]}
    assert summed["epochs"] == ["2 of 2", "1 of 1"]
    assert summed["branched from"][1].startswith("blobs@1, sharing 0 epochs; epochs: 2 → 1; ")
    shown = {value for name, value in found.attributes if name == "data-run"}
    assert shown == {"0", "1"}
    done = call("report", "blobs@1", "blobs@1", *store)
    assert (done.code, "blobs@1 is named twice" in done.err) == (2, True)


def test_a_page_of_too_many_runs_is_refused():
    with pytest.raises(InputError, match="found 33 runs; a page shows 1 to 32"):
        report_html([None] * 33)


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(home):
    for out, problem in (
        ("a.pdf", "expected a name that ends with .html or .htm"),
        ("nowhere/a.html", "there is no folder nowhere; make it first"),
    ):
        done = call("report", "blobs", "--out", out)
        assert done.code == 2
        assert problem in " ".join(done.err.split())
