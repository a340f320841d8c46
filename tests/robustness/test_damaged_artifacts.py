"""Artifacts damaged in the store are made again when they are loaded; those read badly are not."""

import pytest
from support.runs.bare_run import BareRun, copy_of
from support.runs.project import Project, call, environment
from support.stores.malformed_bytes import replaced
from support.stores.planted_files import stage, undo

from epochal.data.errors import CorruptObject, PreflightFailed
from epochal.data.store.open import open_store
from epochal.data.testing.faults import FaultyBackend, injected
from epochal.data.testing.plan import FaultPlan
from epochal.tasks.runs.summary import stage_lines

PARTS = {
    "epochs": 3,
    "ema": {"decay": 0.9},
    "averaging": {"last": 2},
    "sampling": {
        "policy": "importance",
        "scoring": {"weights": "ema"},
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose run is done, and what it made."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(tmp_path_factory.mktemp("finished") / "project", **PARTS)
        return project, BareRun(project.config)().digests


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return copy_of(finished[0], tmp_path / "project", **PARTS)


@pytest.fixture
def store(project):
    return open_store(f"file://{project.store}")


def flip(store, record, name):
    """Turns a bit of the artifact as a bad disk does; gives its path."""
    path = f"stages/{record.key}/{record.artifacts[name].file}"
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 8
    replaced(store, path, bytes(data))
    return path


def computed(run):
    return [(one.stage.kind, one.stage.epoch) for one in run.outcomes if not one.cached]


LOADED = [
    (("initialise", None), "model", ("train", 0)),
    (("train", 1), "model", ("train", 2)),
    (("train", 1), "optimizer", ("train", 2)),
    (("train", 1), "state", ("train", 2)),
    (("train", 1), "ema", ("train", 2)),
    (("mine", 1), "samples", ("train", 2)),
    (("train", 2), "model", ("validate", 2)),
    (("train", 2), "ema", ("validate", 2)),
    (("train", 1), "model", ("score", 1)),
    (("train", 1), "ema", ("score", 1)),
    (("train", 1), "observations", ("mine", 1)),
    (("score", 1), "scores", ("mine", 1)),
    (("mine", 0), "samples", ("mine", 1)),
    (("train", 1), "model", ("average", None)),
    (("average", None), "model", ("validate_average", None)),
]


@pytest.mark.parametrize(("made", "name", "loads"), LOADED)
def test_a_damaged_artifact_is_made_again_by_the_command_whose_stage_loads_it(
    project, store, finished, made, name, loads
):
    record, _ = stage(project, *made)
    undo(store, project, loads)
    path = flip(store, record, name)
    run = BareRun(project.config)()
    assert run.digests == finished[1]
    assert computed(run) == [made, loads]
    told = [line["key"] for line in stage_lines(run.view, run.outcomes)]
    assert told == [planned.key for planned in run.view.stages]
    assert any(path in text and text.endswith("computed again") for text in run.notices)
    assert list(store.listing("damaged")) == [f"damaged/{path}.0"]
    assert call("verify", str(project.store)).code == 0


def test_a_chain_of_damaged_checkpoints_is_made_again_from_its_start(project, store, finished):
    undo(store, project, ("train", 2))
    for kind, epoch, name in (
        ("initialise", None, "model"), ("train", 0, "optimizer"), ("train", 1, "state"),
        ("mine", 0, "samples"), ("mine", 1, "samples"),
    ):  # fmt: skip
        flip(store, stage(project, kind, epoch)[0], name)
    run = BareRun(project.config)()
    assert run.digests == finished[1]
    assert computed(run) == [
        ("mine", 0), ("mine", 1), ("initialise", None), ("train", 0), ("train", 1), ("train", 2),
    ]  # fmt: skip


def test_an_artifact_that_nobody_loads_is_left_to_verify_which_sets_it_aside(
    project, store, finished
):
    path = flip(store, stage(project, "train", 0)[0], "optimizer")
    assert computed(BareRun(project.config)()) == []
    assert path in call("verify", str(project.store)).out.replace("\n", "")
    assert not store.listing("damaged")
    assert call("verify", str(project.store), "--set-aside").code == 75
    assert list(store.listing("damaged")) == [f"damaged/{path}.0"]
    run = BareRun(project.config)()
    assert computed(run) == [("train", 0)]
    assert run.digests == finished[1]
    assert call("verify", str(project.store)).code == 0


class BadSector(FaultyBackend):
    """Keeps one object wrong, also when it is written anew."""

    bad = None

    def put_new(self, path, source):
        if path == self.bad:
            source = b"\0" + source.read_bytes()[1:]
        super().put_new(path, source)


def test_what_is_damaged_again_once_it_was_made_again_ends_the_command(
    project, store, finished, monkeypatch
):
    record, _ = stage(project, "mine", 1)
    undo(store, project, ("train", 2))
    path = flip(store, record, "samples")
    monkeypatch.setattr("epochal.data.testing.faults.FaultyBackend", BadSector)
    monkeypatch.setattr(BadSector, "bad", path)
    with injected(FaultPlan()):
        run = BareRun(project.config)
        with pytest.raises(CorruptObject, match="samples"):
            run()
    assert computed(run) == [("mine", 1)]
    assert len(store.listing("damaged")) == 2
    assert BareRun(project.config)().digests == finished[1]


@pytest.mark.parametrize("at", [1, 7])
@pytest.mark.parametrize("url", ["file://{}", "memory://flips-{}/store"])
def test_bits_that_flip_on_the_way_in_6_percent_of_reads_change_nothing(
    finished, tmp_path, monkeypatch, at, url
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = Project(tmp_path / "project", **PARTS, checkpoint={"every_updates": 2})
    place = url.format(tmp_path / "store" if url.startswith("file") else at)
    with injected(FaultPlan("flip", at=at, every=16)) as plan:
        BareRun(project.config, store=place, epochs=2)()
        longer = BareRun(project.config, store=place)()
        again = BareRun(project.config, store=place)()
    store = open_store(place)
    assert len(plan.operations) > 3 * 16  # so that some have flipped
    assert longer.digests == again.digests == finished[1]
    assert computed(again) == []
    assert not store.listing("damaged")
    assert not [text for run in (longer, again) for text in run.notices if "damaged" in text]


def test_an_object_of_which_all_reads_differ_is_left_as_it_is(project, store):
    with (
        injected(FaultPlan("flip", at=1, count=10**6)),
        pytest.raises(PreflightFailed, match="gave other bytes each time"),
    ):
        BareRun(project.config)
    assert not store.listing("damaged")


def test_initial_weights_are_built_anew_where_a_checkpoint_has_touched_the_model(
    project, store, finished
):
    begun, _ = stage(project, "initialise", None)
    trained, _ = stage(project, "train", 0)
    undo(store, project, ("validate", 0))  # it loads the weights, and then finds their average bad
    flip(store, trained, "ema")
    flip(store, begun, "model")
    run = BareRun(project.config)()
    assert computed(run)[:3] == [("initialise", None), ("train", 0), ("validate", 0)]
    assert run.digests == finished[1]
