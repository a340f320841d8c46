"""Samples whose ids are texts: tables hold numbers, and people are shown the texts."""

import pyarrow.parquet as pq
import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.hashing import text_id
from epochal.tasks.run_data import reading

NAMED = """
    import pathlib

    from blobs import blobs
    from torch.utils.data import Dataset

    class Named(Dataset):
        prefix = "train/"

        def __init__(self, split):
            self.split, self.data = split, blobs(split, size=48)

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            x, y = self.data[row]
            return {"input": x, "target": y, "sample_id": f"{self.prefix}[b]{row} ä.png"}
"""


@pytest.fixture
def project(tmp_path, home):
    made = Project(
        tmp_path / "project",
        epochs=2,
        train_data={"target": "named:Named", "args": {"split": "train"}},
        validation_data={"target": "named:Named", "args": {"split": "validation"}},
    )
    made.write("named.py", NAMED)
    return made


def tables(project):
    return sorted(project.store.glob("fingerprints/*.parquet"))


def names_of(samples):
    return {sample["sample_id"]: sample.get("name") for sample in samples}


NAMES = {text_id(name): name for name in (f"train/[b]{row} ä.png" for row in range(48))}


@pytest.mark.parametrize("workers", [0, 2])
def test_tables_hold_numbers_and_samples_shows_the_texts(project, workers, tmp_path):
    run = BareRun(project.config, loader__workers=workers)()
    done = call("samples", str(project.config), "--hardest", "48", "--json")
    assert done.code == 0, done.err
    assert names_of(done.json["samples"]) == NAMES
    for paths in done.json["tables"]:
        for path in (paths["observations"], paths["samples"]):
            ids = pq.read_table(path)["sample_id"]
            assert str(ids.type) == "int64"
            assert set(ids.to_pylist()) == set(NAMES)
    assert len(tables(project)) == 1  # both data sets have the same ids
    by_name = call("samples", f"{project.store}/{run.plan.run}")
    assert by_name.out.splitlines()[0].split()[:2] == ["name", "sample_id"]
    assert "train/[b]" in by_name.out
    page = tmp_path / "page.html"
    assert call("report", str(project.config), "--out", str(page)).code == 0
    assert "train/[b]" in page.read_text()


def test_another_start_keeps_table_and_keys(project):
    first = BareRun(project.config)()
    before = [(path, path.stat().st_mtime_ns) for path in tables(project)]
    again = BareRun(project.config)()
    assert all(outcome.cached for outcome in again.outcomes)
    assert again.weights == first.weights
    assert [(path, path.stat().st_mtime_ns) for path in tables(project)] == before


def test_a_pictures_caption_is_the_last_part_of_the_text(project, tmp_path):
    from epochal.tasks.report.contact_sheet import captions
    from epochal.tasks.report.page.shown_run import ShownRun
    from epochal.tasks.report.page.write import report_html
    from epochal.tasks.report.samples import view_samples
    from epochal.tasks.run_data.sample_names import sample_names
    from epochal.tasks.runs.find_run import find_run

    BareRun(project.config)()
    run = find_run(str(project.config), store=None, overrides=(), notice=print)
    view = view_samples(run, order=None, count=3, names=sample_names(run, notice=print))
    assert "train/[b]" in report_html([ShownRun(run)])  # as MLflow gets it
    for text, sample in zip(captions(view), view.samples, strict=True):
        assert text.splitlines()[0] == sample["name"].removeprefix("train/")


def test_texts_that_change_replace_their_table(project):
    BareRun(project.config)
    (first,) = tables(project)
    source = project.folder / "named.py"
    source.write_text(source.read_text().replace('"train/"', 'pathlib.Path("prefix").read_text()'))
    for prefix in ("a/", "b/"):
        (project.folder / "prefix").write_text(prefix)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project.folder)
            BareRun(project.config)
    assert first in tables(project)  # of the code as it was
    assert len(tables(project)) == 2


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_table_that_cannot_be_read_is_told_and_the_numbers_are_shown(project, loss):
    BareRun(project.config)()
    (table,) = tables(project)
    table.chmod(0o644)
    table.unlink() if loss == "gone" else table.write_bytes(table.read_bytes()[:-9])
    done = call("samples", str(project.config), "--json")
    assert done.code == 0, done.err
    assert "the text ids of samples are not shown" in done.err
    assert "name" not in done.json["samples"][0]
    assert done.json["samples"][0]["sample_id"] in NAMES
    table.unlink(missing_ok=True)
    BareRun(project.config)
    assert "name" in call("samples", str(project.config), "--json").json["samples"][0]


def test_a_table_that_would_be_too_large_is_told_and_not_kept(project, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SAMPLES", 47)
    run = BareRun(project.config)
    assert [text for text in run.notices if "are not kept" in text]
    assert tables(project) == []


def test_texts_and_numbers_together_are_refused_at_the_start(project):
    source = project.folder / "named.py"
    source.write_text(source.read_text().replace('f"{self.prefix}[b]{row} ä.png"', 'row or "0"'))
    done = project("train")
    assert done.code == 2
    assert "train_data: item 0 has the sample_id '0', a text, and item 1 has 1" in done.err
    assert not project.store.exists()
