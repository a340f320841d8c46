"""Runs over tar shards, as they come and as `epochal data index` writes them."""

import pytest
from support.numbers.drawing_data import few_processors
from support.runs.bare_run import BareRun
from support.runs.project import Project, environment
from support.stores.tar_files import write_shards

from epochal.data.errors import TrainingFailed
from epochal.tasks.run_data.index_data import Request, index_data

TARGET = "epochal.data.datasets:tar_shards"
MODEL = """
    import os
    from torch import nn

    class Net(nn.Module):
        def __init__(self, inputs=60):
            super().__init__()
            self.head = nn.Linear(inputs, 3)
            self.calls = 0

        def forward(self, x):
            if self.training:
                self.calls += 1
                if self.calls == int(os.environ.get("FAIL_AT_CALL", -1)):
                    raise RuntimeError("the machine room is on fire")
            return self.head(x.reshape(len(x), -1).float() / 100)
"""


@pytest.fixture
def project(tmp_path, home, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    made = Project(
        folder,
        epochs=2,
        threads=1,
        model={"target": "net:Net"},
        loader={"batch_size": 4},
        sampling={"policy": "none"},
        **{
            f"{part}_data": {
                "target": TARGET,
                "args": {"path": "./shards/s-{000..003}.tar", "split": {"part": part}},
            }
            for part in ("train", "validation")
        },
    )
    made.write("net.py", MODEL)
    write_shards(folder / "shards", shards=4)
    return made


@few_processors
@pytest.mark.parametrize("readers", [{"loader__workers": 3}, {"loader__threads": 2}], ids=str)
def test_a_run_over_shards_ends_in_the_same_bytes_with_any_readers_and_after_an_interruption(
    project, tmp_path, readers
):
    whole = BareRun(project.config, store=f"file://{tmp_path}/whole", **readers)()
    often = {"checkpoint__every_updates": 1}
    with environment(FAIL_AT_CALL="11"), pytest.raises(TrainingFailed):
        BareRun(project.config, **often)()
    again = BareRun(project.config, **often)()
    assert again.resumed
    assert again.digests == whole.digests


def test_what_an_iterable_gave_trains_as_the_same_items_do(project, tmp_path, monkeypatch):
    monkeypatch.chdir(project.folder)
    for part, size in (("train", 60), ("validation", 24)):
        args = f'{{"split": "{part}", "size": {size}}}'
        index_data(Request(source="blobs:blobs", args=args, out=f"./{part}"), told=lambda *_: None)
    as_items = {"launch__kind": "inline", "model__args__inputs": 6}
    for part, size in (("train", 60), ("validation", 24)):
        as_items[f"{part}_data"] = (
            f'{{"target": "blobs:blobs", "args": {{"split": "{part}", "size": {size}}}}}'
        )
    in_shards = {"model__args__inputs": 6}
    for part in ("train", "validation"):
        in_shards[f"{part}_data"] = f'{{"target": "{TARGET}", "args": {{"path": "./{part}"}}}}'
    stores = [f"file://{tmp_path}/{number}" for number in range(2)]
    runs = [
        BareRun(project.config, store=store, **sets)()
        for store, sets in zip(stores, (as_items, in_shards), strict=True)
    ]
    assert runs[0].weights == runs[1].weights
