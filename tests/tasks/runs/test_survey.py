"""What of a run is really there: which bytes are hashed, what is set aside, what is cleared."""

import pytest
from support.bare_run import BareRun
from support.project import Project

from epochal.tasks.runs import survey as module


@pytest.fixture
def project(tmp_path, home):
    return Project(tmp_path / "project", epochs=2)


def path_of(run, kind, epoch, name, project):
    record = run.session.records[run.session.stage(kind, epoch).key]
    return project.store / "stages" / record.key / record.artifacts[name].file


def flip(path):
    """Another bit in the middle: the size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def damaged(project, kind, epoch, name, **sets):
    """Whether a survey finds a flipped bit of that artifact."""
    run = BareRun(project.config, **sets)()
    flip(path_of(run, kind, epoch, name, project))
    done, notices = surveyed(run)
    assert ((kind, epoch) in done) == (notices == [])
    return bool(notices)


def surveyed(run):
    notices = []
    session = run.session
    records = module.survey(session.stage_store, session.stages, notice=notices.append)
    return {(one.stage, one.epoch) for one in records.values()}, notices


def test_an_intact_run_is_done_and_nothing_is_said(project):
    run = BareRun(project.config)()
    done, notices = surveyed(run)
    assert done == {(stage.kind, stage.epoch) for stage in run.session.stages}
    assert notices == []


@pytest.mark.parametrize(
    ("kind", "epoch", "name"),
    [
        ("train", 0, "observations"),
        ("train", 0, "updates"),
        ("mine", 0, "samples"),
        ("train", 1, "model"),  # its digest is reported
    ],
)
def test_tables_and_the_last_model_are_hashed_however_large_a_run_is(
    project, monkeypatch, kind, epoch, name
):
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    assert damaged(project, kind, epoch, name)


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_checkpoints_that_nobody_loads_are_hashed_while_they_are_small(project, monkeypatch, small):
    monkeypatch.setattr(module, "SMALL_BYTES", small)
    assert damaged(project, "train", 0, "optimizer") == bool(small)


def test_tables_do_not_count_among_what_is_small(project, monkeypatch):
    run = BareRun(project.config)()
    sizes = [
        artifact.size
        for record in run.session.records.values()
        for name, artifact in record.artifacts.items()
        if name not in module.TABLES and (record.epoch, name) != (1, "model")
    ]
    monkeypatch.setattr(module, "SMALL_BYTES", sum(sizes))
    flip(path_of(run, "train", 1, "optimizer", project))
    assert ("train", 1) not in surveyed(run)[0]


def test_what_a_stage_to_be_computed_loads_is_hashed_whatever_its_size(project, monkeypatch):
    monkeypatch.setattr(module, "SMALL_BYTES", 0)
    run = BareRun(project.config)()
    (project.store / "stages" / run.session.stage("train", 1).key / "record.json").unlink()
    flip(path_of(run, "train", 0, "optimizer", project))
    done, notices = surveyed(run)
    assert ("train", 0) not in done
    assert len(notices) == 1
    assert notices[0].startswith("train · epoch 0: ")


def test_commits_inside_a_finished_epoch_are_deleted(project):
    run = BareRun(project.config)()
    left = project.store / "stages" / run.session.stage("train", 0).key / "partial" / "left.json"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"{}")
    done, notices = surveyed(run)
    assert not left.exists()
    assert ("train", 0) in done
    assert notices == []
