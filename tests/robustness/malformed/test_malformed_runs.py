"""A run over a store that an enemy wrote: what is wrong is set aside, and the same bytes come out.

Two kinds of attack: bytes changed, which their digests tell; and wrong contents under right
digests, which only their reader can tell.
"""

import numpy as np
import pytest
from support.runs.bare_run import BareRun, copy_of
from support.runs.project import Project, environment
from support.stores.malformed_bytes import replaced, rewritten, safetensors_bytes
from support.stores.planted_files import plant, stage, undo

from epochal.data.documents import dump_document
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.tasks.runs.lookup import look_up

EPOCHS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose run is done, and what it made."""
    with environment(HOME=str(tmp_path_factory.mktemp("home"))):
        project = Project(tmp_path_factory.mktemp("finished") / "project", epochs=EPOCHS)
        return project, BareRun(project.config)().digests


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return copy_of(finished[0], tmp_path / "project", epochs=EPOCHS)


@pytest.fixture
def store(project):
    return open_store(f"file://{project.store}")


@pytest.fixture(scope="module")
def planned(finished):
    """The session of the finished run, to look at."""
    return BareRun(finished[0].config).session


def test_a_flipped_bit_in_any_object_is_set_aside_and_the_same_bytes_come_out(
    project, store, finished
):
    for number, path in enumerate(store.listing("stages")):
        data = bytearray(store.read(path))
        data[len(data) * (number % 7) // 7] ^= 1 << (number % 8)
        replaced(store, path, bytes(data))
    run = BareRun(project.config)()
    assert run.digests == finished[1]
    assert store.listing("damaged")


def test_other_bytes_in_every_object_are_set_aside(project, store, finished):
    for number, path in enumerate(store.listing("stages")):
        replaced(store, path, b"\0" * 4096 * (number % 2))
    run = BareRun(project.config)()
    assert run.digests == finished[1]


WRONG_RECORDS = (
    ("train", lambda body: body.update(stage="validate")),
    ("train", lambda body: body.update(epoch=5)),
    ("train", lambda body: body["values"].pop("updates_done")),
    ("train", lambda body: body["values"].update(updates_done="12")),
    ("train", lambda body: body["values"].update(samples=-1)),
    ("train", lambda body: body["values"].update(loss="os:system")),
    ("train", lambda body: body["artifacts"].pop("optimizer")),
    ("train", lambda body: body.update(artifacts={})),
    ("validate", lambda body: body["values"].update(metrics=[])),
    ("validate", lambda body: body["values"]["metrics"].update(accuracy="1")),
    ("mine", lambda body: body["values"].update(kept_fraction=2.0)),
    ("mine", lambda body: body["values"].clear()),
    ("initialise", lambda body: body.update(epoch=0)),
    ("initialise", lambda body: body.update(stage="no_such_stage")),
)


@pytest.mark.parametrize(("kind", "change"), WRONG_RECORDS)
def test_a_record_that_cannot_be_of_its_stage_is_damage(planned, project, store, kind, change):
    wanted = next(one for one in planned.run.stages if one.kind == kind)
    path = f"stages/{wanted.known_key}/record.json"
    rewritten(store, path, change)
    status = look_up(StageStore(store), [wanted.known_key], stages=[wanted])[wanted.known_key]
    assert status.record is None
    assert path in status.problem
    assert status.damaged == (path,)


def test_records_that_cannot_be_of_their_stages_are_set_aside(project, store, finished):
    record, folder = stage(project, "train", 0)
    rewritten(store, f"{folder}/record.json", lambda body: body["values"].pop("updates_done"))
    other, folder = stage(project, "mine", 1)
    rewritten(store, f"{folder}/record.json", lambda body: body["values"].clear())
    run = BareRun(project.config)()
    assert run.digests == finished[1]
    aside = store.listing("damaged")
    assert all(any(one.key in path for path in aside) for one in (record, other))


ENTRY = {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("kind", "name", "data", "undone"),
    [
        ("train", "optimizer", safetensors_bytes({"x": ENTRY}), [("train", 1)]),
        ("train", "state", dump_document({"groups": 3}), [("train", 1)]),
        ("mine", "samples", b"PAR1no tablePAR1", [("train", 1)]),
    ],
)
def test_wrong_contents_under_right_digests_are_named_and_computed_again(
    project, store, finished, kind, name, data, undone
):
    record, _ = stage(project, kind, 0)
    undo(store, project, *undone)
    path = plant(store, record, name, data)
    run = BareRun(project.config)()
    (told,) = [text for text in run.notices if path in text]
    assert "damaged/" in told
    assert told.endswith("it is computed again")
    assert run.digests == finished[1]
    assert any(place.startswith(f"damaged/{path}") for place in store.listing("damaged"))


def test_a_table_of_more_rows_than_there_are_samples_is_refused(project, store, finished):
    from epochal.data.tables.writing import OBSERVATIONS, read_table, write_table

    record, folder = stage(project, "train", 0)
    undo(store, project, ("mine", 0))
    with store.fetch(f"{folder}/{record.artifacts['observations'].file}") as path:
        columns = read_table(path, schema=OBSERVATIONS).columns
    longer = {name: np.concatenate([column] * 2) for name, column in columns.items()}
    longer["sample_id"] = np.arange(len(longer["loss"]))
    with store.scratch() as scratch:
        write_table(longer, scratch / "t", schema=OBSERVATIONS, metadata={})
        plant(store, record, "observations", (scratch / "t").read_bytes())
    run = BareRun(project.config)()
    assert "claims 360 rows, expected at most 180" in str(run.notices)
    assert run.digests == finished[1]
