"""`epochal data index`: an index beside shards, and shards of what a config can only iterate."""

import json
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from support.runs.project import Project, environment
from support.stores.tar_files import write_shards

from epochal.data import datasets
from epochal.data.errors import DataError, InputError
from epochal.tasks.config.load import load_config
from epochal.tasks.preflight.data_check import check_data
from epochal.tasks.run_data.index_data import Request, index_data

tar_shards = partial(datasets.tar_shards, dtype="uint8")
"""Pixels as they are stored, to be compared to the last bit."""

STREAM = """
    import os
    import signal
    import numpy as np
    import torch
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset):
        def __init__(self, size=180):
            self.size = size

        def __iter__(self):
            for row in range(self.size):
                if row == int(os.environ.get("KILL_AT", -1)):
                    os.kill(os.getpid(), signal.SIGKILL)
                label = row % 3
                yield torch.eye(3).repeat(1, 2)[label] * 2 + torch.rand(6), label

    def generated(size, fail=False):
        for row in range(size):
            if fail and row == 5:
                raise RuntimeError("no more")
            yield {"input": np.random.rand(4), "target": row % 3}

    def endless():
        row = 0
        while True:
            yield (row, row % 2)
            row += 1

    def loader():
        from torch.utils.data import DataLoader
        return DataLoader(Stream())
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    project = Project(tmp_path / "project", epochs=1, train_data={"target": "stream:Stream"})
    project.write("stream.py", STREAM)
    monkeypatch.chdir(project.folder)
    return project


def index(source, **options):
    told = []
    found = index_data(
        Request(source=str(source), **options), told=lambda *given: told.append(given)
    )
    return found, told


def test_an_index_is_written_beside_shards_and_used_from_there(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards")
    found, told = index(folder)
    assert found.index == f"{folder}/index.epochal.arrow"
    assert (found.samples, found.shards) == (30, 3)
    assert told[-1] == (3, 3, "shards")
    assert len(tar_shards(folder)) == 30
    assert len(tar_shards(f"{folder}/s-001.tar")) == 10
    assert not (tmp_path / "cache").exists()


def test_an_index_elsewhere_is_used_where_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards")
    found, _ = index(folder, out=str(tmp_path / "elsewhere.arrow"))
    assert not (folder / "index.epochal.arrow").exists()
    data = tar_shards(folder, index=str(tmp_path / "elsewhere.arrow"))
    assert data.fingerprint() == tar_shards(folder).fingerprint()
    write_shards(folder, shards=4)
    with pytest.raises(DataError, match=r"elsewhere\.arrow has not the shard s-003\.tar"):
        tar_shards(folder, index=found.index)


def test_an_index_of_other_shards_is_told_and_not_used(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    folder = write_shards(tmp_path / "shards")
    index(folder)
    write_shards(folder, shards=4)
    assert len(tar_shards(folder)) == 40
    assert "has not the shard s-003.tar" in caplog.text


def test_an_iterable_of_a_config_is_refused_with_the_command_that_makes_shards_of_it(project):
    (refused,) = check_data(load_config(project.config)).refused
    command = "`epochal data index CONFIG.yaml --field train_data --out ./train_data`"
    assert command in refused
    found, _ = index(project.config, field="train_data", out="./train_data")
    assert found.samples == 180
    assert 'train_data: {target: "epochal.data.datasets:tar_shards"' in refused
    project.config.write_text(
        project.config.read_text().replace(
            "target: stream:Stream",
            "target: 'epochal.data.datasets:tar_shards'\n  args: {path: ./train_data}",
        )
    )
    assert check_data(load_config(project.config)).refused == []


def test_a_generator_function_of_a_target_is_written_with_its_args(project):
    done, told = index("stream:generated", args='{"size": 12}', out="out")
    assert (done.samples, done.kept) == (12, 0)
    assert told[-1] == (12, None, "samples")
    data = tar_shards("out")
    assert list(data[4]) == ["input", "target"]
    assert data.targets.tolist() == [0, 1, 2] * 4
    assert data[4]["input"].dtype == "float64"


def test_what_never_ends_is_written_up_to_a_number(project):
    assert index("stream:endless", samples=7, out="out")[0].samples == 7
    assert tar_shards("out")[6] == (6, 0)


def test_a_map_style_data_set_is_written_too(project):
    index("blobs:blobs", args='{"split": "train", "size": 9}', out="out")
    from blobs import blobs

    expected = blobs("train", size=9)
    for place, (point, label) in enumerate(tar_shards("out")):
        assert point.equal(expected[place][0])
        assert torch.equal(label, expected[place][1])


@pytest.mark.parametrize(
    ("source", "options", "text"),
    [
        ("run.yaml", {"field": "scoring", "out": "o"}, "--field scoring: expected one of train_"),
        ("run.yaml", {}, "--out: say where the shards of train_data"),
        ("stream:generated", {"args": "[1]", "out": "o"}, "expected a JSON object"),
        ("stream:generated", {"args": "{", "out": "o"}, "expected a JSON object"),
        ("stream:generated", {"args": '{"size": 9, "fail": true}', "out": "o"}, "no more"),
        ("stream:loader", {"out": "o"}, "return its `dataset`"),
        ("./shards", {"samples": 3}, "--samples"),
        ("./shards", {"args": "{}"}, "--args"),
        ("./nowhere", {}, "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(project, source, options, text):
    with pytest.raises(InputError, match=text):
        index(source, **options)


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on_and_gives_the_same_bytes(project):
    def command(out, **variables):
        with environment(**variables):
            return subprocess.run(
                [sys.executable, "-m", "epochal.flows.cli", "data", "index", "run.yaml", "--json",
                 "--out", out, "--shard-mb", "1", "--set", "train_data.args.size=3000"],
                cwd=project.folder, env={**os.environ, "PYTHONPATH": ""}, capture_output=True,
                text=True, check=False,
            )  # fmt: skip

    killed = command("out", KILL_AT="2000")
    assert killed.returncode == -signal.SIGKILL
    done = command("out")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["samples"] == 3000
    assert told["kept"] > 1
    index(project.config, out="whole", shard_bytes=1 << 20, overrides=["train_data.args.size=3000"])
    names = sorted(path.name for path in (project.folder / "whole").iterdir())
    assert sorted(path.name for path in (project.folder / "out").iterdir()) == names
    for name in names:
        one, other = (project.folder / folder / name for folder in ("out", "whole"))
        assert one.read_bytes() == other.read_bytes(), name
