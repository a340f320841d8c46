"""What is known of a data set at a start: remembered, looked at, or read, and by whom."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call

from epochal.data.errors import DataError, InputError
from epochal.data.inspection import item_reader
from epochal.data.inspection.describe import HowToRead, describe
from epochal.tasks.config.load import load_config
from epochal.tasks.run_data import hash_order, reading
from epochal.tasks.runs.plan import make_plan

DATA = """
    import json
    import pathlib

    import torch
    from blobs import blobs
    from torch.utils.data import Dataset

    class Noted(Dataset):
        '''Notes its objects and what is read of each; `state.json` beside it says what is wrong.'''

        objects = []

        def __init__(self, split="train", told=None, ids=0):
            self.data, self.split, self.ids = blobs(split, size=120), split, ids
            self.read = []
            if split == "train":
                Noted.objects.append(self)
            if told is not None:
                self.fingerprint = lambda: told

        def __len__(self):
            return len(self.data)

        def __getitem__(self, row):
            self.read.append(row)
            state = json.loads(pathlib.Path(__file__).with_name("state.json").read_text())
            x, y = self.data[row]
            if self.split == "train" and row in state.get("broken", ()):
                raise OSError(f"photos/{row}.png is truncated")
            if self.split == "train" and row in state.get("nan", ()):
                x = x * float("nan")
            y = (int(y) + state.get("shift", 0)) % 3
            item = {"input": x, "target": y}
            return {**item, "sample_id": 1000 - row} if self.ids else item

    class Names(Noted):
        '''Its labels go by the order of a set of texts.'''

        def __getitem__(self, row):
            item = super().__getitem__(row)
            names = {name: place for place, name in enumerate({"cat", "dog", "bird"})}
            return {**item, "target": names[("cat", "dog", "bird")[item["target"]]]}
"""


class State:
    """The file that says what is wrong with the items, and the objects that were read."""

    def __init__(self, project):
        self.project = project
        self()

    def __call__(self, **state):
        (self.project.folder / "state.json").write_text(json.dumps(state))

    def objects(self, run):
        """What each object of the training data was asked for, oldest first."""
        module = type(run.work.data["train_data"].make()).__module__
        return [one.read for one in sys.modules[module].Noted.objects]


@pytest.fixture
def project(tmp_path, home):
    made = Project(
        tmp_path / "project",
        epochs=1,
        train_data={"target": "noted:Noted", "args": {}},
        validation_data={"target": "noted:Noted", "args": {"split": "validation"}},
    )
    made.write("noted.py", DATA)
    made.state = State(made)
    return made


def train_data(**args):
    name = args.pop("name", "Noted")
    version = args.pop("version", None)
    return json.dumps({"target": f"noted:{name}", "args": args, "version": version})


def slow(monkeypatch):
    monkeypatch.setattr(reading, "QUICK_READ_S", -1.0)  # everything takes long


def changes(run):
    return [text for text in run.notices if "has changed since it was last read" in text]


def test_the_object_that_is_trained_on_is_one_that_nobody_has_read_from(project):
    run = BareRun(project.config)
    before = [list(one) for one in project.state.objects(run)]
    assert len(before[0]) >= 120  # the one that was described
    run()
    after = project.state.objects(run)
    assert after[: len(before)][0] == before[0]
    trained = [one for one in after if len(one) == 120 and sorted(one) == list(range(120))]
    assert trained


def test_what_took_long_is_read_once_and_64_items_are_compared_at_the_next_start(
    project, monkeypatch
):
    slow(monkeypatch)
    first = BareRun(project.config, train_data=train_data(ids=1))()
    assert changes(first) == []
    again = BareRun(project.config, train_data=train_data(ids=1))
    assert all(one.cached for one in again().outcomes)
    looked = project.state.objects(again)
    assert any(len(one) == 64 for one in looked)
    assert changes(again) == []
    assert again.work.data["train_data"].sample_ids_N.tolist() == [1000 - row for row in range(120)]
    assert again.work.data["train_data"].labels_N is not None


def test_what_differs_is_named_and_the_data_counts_as_changed(project, monkeypatch):
    slow(monkeypatch)
    BareRun(project.config)()
    project.state(shift=1)
    run = BareRun(project.config)
    (told,) = [text for text in changes(run) if text.startswith("train_data")]
    assert "item 0 had the label" in told
    assert "more of 64 items" in told
    assert not any(one.cached for one in run().outcomes if one.stage.kind == "train")
    assert changes(BareRun(project.config)) == []


@pytest.mark.slow
def test_items_that_change_under_a_fingerprint_that_stays_count_as_changed(project):
    told = {"train_data": train_data(told="v1")}
    before = BareRun(project.config, **told)()
    assert max(map(len, project.state.objects(before))) <= 64 + 8 + 120
    project.state(shift=2)
    run = BareRun(project.config, **told)
    assert len(changes(run)) == 2  # validation reads the same file
    assert not any(one.cached for one in run().outcomes if one.stage.kind == "train")
    assert changes(BareRun(project.config, **told)) == []
    assert all(one.cached for one in BareRun(project.config, **told)().outcomes)


def test_a_stated_version_reads_nothing_at_later_starts_and_ids_once(project):
    sets = {"train_data": train_data(ids=1, version="v1")}
    run = BareRun(project.config, **sets)
    assert run.work.data["train_data"].sample_ids_N[0] == 1000
    before = len(project.state.objects(run))
    again = BareRun(project.config, **sets)
    assert again.work.data["train_data"].sample_ids_N[0] == 1000
    read = project.state.objects(again)[before:]
    assert max(map(len, read)) < 60  # the tries of the model alone


def started(project, hash_seed):
    """A whole run in a process of its own; what it ended with."""
    code = (
        "import sys; from pathlib import Path; from support.runs.bare_run import BareRun; "
        "BareRun(Path(sys.argv[1]), train_data=sys.argv[2])()"
    )
    tests = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", code, str(project.config), train_data(name="Names")],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_labels_that_go_by_the_order_of_a_set_are_refused_at_the_next_start(project):
    first = started(project, "1")
    assert first.returncode == 0, first.stderr
    other = started(project, "3")
    assert other.returncode != 0
    assert "DataError: train_data: item" in other.stderr
    assert "the order of a set" in other.stderr
    assert "sorted(" in other.stderr


def test_it_is_said_where_nobody_could_tell_whether_a_set_is_the_cause(project, monkeypatch):
    slow(monkeypatch)
    BareRun(project.config)()
    project.state(shift=1)
    monkeypatch.setattr(hash_order, "LIMIT_S", 0.0)
    texts = BareRun(project.config).notices
    (told,) = [text for text in texts if text.startswith("train_data: whether it depends on")]
    assert "the order of a set" in told
    assert "took longer than 0 s" in told


def test_bad_samples_are_left_out_listed_and_part_of_the_keys(project):
    whole = BareRun(project.config)()
    project.state(broken=[3, 77], nan=[50])
    with pytest.raises(InputError, match=r"item 3 of 120 raised OSError: photos/3.png"):
        BareRun(project.config)
    sets = {"loader__on_bad_sample": "quarantine", "loader__max_bad_share": "0.05"}
    run = BareRun(project.config, **sets)
    (told,) = [text for text in run.notices if text.startswith("train_data: 3 of 120 samples")]
    assert "item 3: OSError: photos/3.png is truncated" in told
    assert "item 50: holds numbers that are not finite" in told
    run()
    assert run.weights != whole.weights
    data = run.work.data["train_data"]
    left = [row for row in range(120) if row not in (3, 50, 77)]
    assert data.sample_ids_N.tolist() == left
    assert all(one.cached for one in BareRun(project.config, **sets)().outcomes)
    shown = make_plan(load_config(project.config, overrides=[
        "loader.on_bad_sample=quarantine", "loader.max_bad_share=0.05"]))  # fmt: skip
    assert shown.num_done == shown.num_needed


def test_samples_and_report_show_what_is_left_out(project, tmp_path):
    project.state(broken=[3])
    sets = ["loader.on_bad_sample=quarantine"]
    BareRun(project.config, loader__on_bad_sample="quarantine")()
    done = call("samples", str(project.config), "--set", *sets, "--json")
    assert done.code == 0, done.err
    assert done.json["left_out"] == [
        {
            "data": "train_data",
            "position": 3,
            "path": None,
            "error": "OSError: photos/3.png is truncated",
        }
    ]
    assert "photos/3.png" in call("samples", str(project.config), "--set", *sets).out
    page = tmp_path / "report.html"
    done = call("report", str(project.config), "--set", *sets, "--out", str(page))
    assert done.code == 0, done.err
    assert "Samples left out" in page.read_text()


def test_more_bad_samples_than_the_share_are_refused(project):
    project.state(broken=[1, 2])
    with pytest.raises(DataError, match="2 of 120 samples are bad, more than the share of 0.01"):
        BareRun(project.config, loader__on_bad_sample="quarantine")


def test_a_set_without_bad_samples_has_the_keys_of_one_that_raises(project):
    raises = BareRun(project.config)()
    kept = BareRun(project.config, loader__on_bad_sample="quarantine")()
    assert kept.weights == raises.weights
    assert all(one.cached for one in kept.outcomes)


def test_another_process_refuses_data_that_is_not_what_the_first_has_read(project):
    config = load_config(project.config)
    run = BareRun(project.config)
    known = run.work.data["train_data"].info
    reading.check_same_items(config, "train_data", known)
    project.state(shift=1)
    with pytest.raises(DataError, match="not what the first process has read: item 0 had"):
        reading.check_same_items(config, "train_data", known)


def test_several_processes_read_to_the_fingerprint_ids_and_labels_of_one(monkeypatch):
    class Items:
        def __len__(self):
            return 300

        def __getitem__(self, row):
            label = {"target": row % 5, "sample_id": f"{row:03d}.png"}
            return {"input": np.full((3, row % 7 + 1), row / 3), **label}

    alone = describe(Items(), name="data")
    monkeypatch.setattr(item_reader, "TRIED_S", 0.0)
    monkeypatch.setattr(item_reader, "ALONE_S", -1.0)
    monkeypatch.setattr(item_reader, "num_readers", lambda: 2)
    told = []
    how = HowToRead(make=Items, progress=lambda *done: told.append(done), steady=False)
    together = describe(Items(), name="data", how=how)
    assert together.fingerprint == alone.fingerprint
    assert together.texts == alone.texts
    assert together.labels.tolist() == alone.labels.tolist()
    assert together.inputs.tolist() == alone.inputs.tolist()
    assert together.unequal_at == alone.unequal_at == 1
    assert sorted(together.seen, key=lambda one: one.position) == sorted(
        alone.seen, key=lambda one: one.position
    )
    assert told[-1] == (300, 300)
