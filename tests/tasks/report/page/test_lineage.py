"""The tree of runs: an epoch once, where runs part, what is done and what is only planned."""

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.tasks.report.page import lineage as module
from epochal.tasks.report.page.lineage import lineage
from epochal.tasks.runs.find_run import find_run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three generations: the second shares two epochs with the first, the third none."""
    folder = tmp_path_factory.mktemp("lineage")
    project = Project(folder / "project", epochs=3, sampling={"policy": "none"})
    BareRun(project.config)()
    decay = "{kind: warmup_stable_decay, warmup: 0, decay: 1}"
    BareRun(project.config, schedule=decay)()
    run = BareRun(project.config, optimizer__args__lr=0.5)
    for stage in list(run.run.stages())[:2]:
        run.run.run_stage(stage)
    return str(project.store)


def test_an_epoch_is_one_place_however_many_runs_have_it(store):
    found = lineage([find_run("blobs@2", store=store)])
    assert found.lanes == ["blobs@1", "blobs@2", "blobs@3"]
    places = [(node.lane, node.epoch, node.parent) for node in found.nodes]
    assert places == [
        (0, 0, None), (0, 1, (0, 0)), (0, 2, (1, 0)),
        (1, 2, (1, 0)),
        (2, 0, None), (2, 1, (0, 2)), (2, 2, (1, 2)),
    ]  # fmt: skip
    assert [node.shared for node in found.nodes] == [True, True, *[False] * 5]
    assert [node.done for node in found.nodes] == [*[True] * 5, False, False]
    assert [node.colour for node in found.nodes] == [None, None, None, 0, None, None, None]
    assert found.nodes[0].runs == "blobs@1, blobs@2"


def test_each_run_is_told_in_words(store):
    rows = lineage([find_run("blobs@2", store=store)]).rows
    assert [row[:4] for row in rows] == [
        ["blobs@1", "3 of 3", "2 with blobs@2", "–"],
        ["blobs@2", "3 of 3", "2 with blobs@1", "blobs@1"],
        ["blobs@3", "1 of 3", "none", "blobs@2"],
    ]
    assert "schedule.kind: constant → warmup_stable_decay" in rows[1][4].replace('"', "")
    assert "optimizer.args.lr: 0.01 → 0.5" in rows[2][4]


def test_of_many_epochs_some_are_drawn_and_those_where_runs_part(store, monkeypatch):
    monkeypatch.setattr(module, "MAX_NODES", 6)
    found = lineage([find_run("blobs@1", store=store), find_run("blobs@2", store=store)])
    places = [(node.lane, node.epoch, node.parent) for node in found.nodes]
    assert (0, 2, (0, 0)) in places
    assert (1, 2, (1, 0)) in places
    monkeypatch.setattr(module, "MAX_LANES", 1)
    found = lineage([find_run("blobs@2", store=store)])
    assert (found.lanes, found.left_out) == (["blobs@2"], 2)
