"""A shared store in which a plan makes no sense: that run alone is named and passed over."""

import json
import tracemalloc

import pytest
from support.runs.bare_run import copy_of, finished_project
from support.runs.project import call
from support.stores.malformed_bytes import document

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose run is done."""
    return finished_project(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return copy_of(finished, tmp_path / "project", epochs=2)


def plan_of(project):
    (path,) = (project.store / "runs").glob("*/plans/*.json")
    return json.loads(path.read_text())["body"]


def planted(project, data):
    """Another run in the store, `evil`, whose plan is `data`."""
    folder = project.store / "runs" / "evil" / "plans"
    folder.mkdir(parents=True)
    (folder / "000001.json").write_bytes(data)


def contradicting(project, change):
    plan = plan_of(project)
    plan["run"] = plan["config"]["name"] = "evil"
    change(plan)
    return dump_document(plan)


def custom_schedule(plan):
    plan["config"]["schedule"] = {"kind": "custom", "target": "m:f", "args": {}, "unit": "epochs"}


def custom_schedule_of_one_epoch(plan):
    custom_schedule(plan)
    plan["schedule"] = ["0" * 64]


def a_million_epochs(plan):
    plan["config"]["epochs"] = 1_000_000


def no_stages(plan):
    plan["stages"] = []


def nested_args(plan):
    plan["config"]["model"]["args"] = {"a": json.loads("[" * 55 + "]" * 55)}


def huge_numbers(plan):
    plan["config"]["optimizer"]["args"]["lr"] = 10**300
    plan["num_samples"] = 10**300


CONTRADICTIONS = [
    custom_schedule, custom_schedule_of_one_epoch, a_million_epochs, no_stages, huge_numbers,
    nested_args,
]  # fmt: skip
UNREADABLE = {
    "lists": document("{" + '"a":[' + ",".join(["[]"] * 5_000_000) + "]}"),
    "nesting": document('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "objects": document('{"a":[' + ",".join(["{}"] * 3_000_000) + "]}"),
    "bytes": document('{"a":"' + "x" * (1 << 25) + '"}'),
    "numbers": document('{"a":[' + ",".join(["1"] * 10_000_000) + "]}"),
    "nothing": b"",
}


def obeyed(project, *, named=True):
    """Each reading command does its work for the other run, and says which one it passes over."""
    store = str(project.store)
    runs = call("runs", store, "--json")
    assert runs.code == 0, runs.err
    assert "digits" not in runs.err
    found = [run["run"] for run in runs.json["runs"]]
    own = plan_of_own(project)["run"]
    assert own in found
    assert not named or ("evil" in found) != ("run evil" in runs.err)
    assert call("show", own, "--store", store).code == 0
    shown = call("show", "evil", "--store", store)
    assert shown.code in {0, 2}
    assert "Traceback" not in shown.err
    for command in ("gc", "verify"):
        done = call(command, store)
        assert done.code in {0, 2, 75}, done.err
        assert "Traceback" not in done.err
        assert done.code == 0 or "evil" in done.err + done.out
    return shown


def plan_of_own(project):
    paths = (project.store / "runs").glob("*/plans/*.json")
    (path,) = (path for path in paths if path.parts[-3] != "evil")
    return json.loads(path.read_text())["body"]


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_a_plan_that_contradicts_itself_is_named_and_passed_over(change, project):
    planted(project, contradicting(project, change))
    shown = obeyed(project)
    assert shown.code == 0 or "evil" in shown.err


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_plan_that_cannot_be_read_is_named_and_passed_over(kind, project):
    planted(project, UNREADABLE[kind])
    assert obeyed(project).code == 2


@pytest.mark.parametrize("kind", ["lists", "nesting", "objects", "bytes"])
def test_a_document_takes_no_more_memory_than_its_bytes_allow(kind):
    data = UNREADABLE[kind]
    tracemalloc.start()
    with pytest.raises(CorruptObject):
        load_document(data, name="x")
    assert tracemalloc.get_traced_memory()[1] < len(data)
    tracemalloc.stop()


def test_gc_keeps_the_stages_of_a_plan_that_makes_no_sense(project):
    planted(project, contradicting(project, a_million_epochs))
    before = {path for path in project.store.rglob("*") if path.is_file()}
    done = call("gc", str(project.store), "--yes")
    assert done.code == 0
    assert "all stages of this run are kept" in done.err
    assert "evil" in done.err
    assert {path for path in project.store.rglob("*") if path.is_file()} == before


def test_verify_sets_aside_a_plan_that_makes_no_sense_and_is_content_then(project):
    planted(project, contradicting(project, a_million_epochs))
    done = call("verify", str(project.store), "--set-aside", "--json")
    assert done.code == 75
    assert done.json["moved"] == ["runs/evil/plans/000001.json"]
    assert call("verify", str(project.store)).code == 0


def states(folder):
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (one.st_mode, one.st_size, one.st_mtime_ns) for path, one in found.items()}


@pytest.mark.parametrize(
    "folder",
    ["stages", "runs", "fingerprints", "runs/evil", "runs/evil/plans", "stages/" + "a" * 64],
)
def test_a_link_in_the_place_of_a_folder_is_named_and_never_followed(folder, project, tmp_path):
    other = tmp_path / "other"
    place = project.store / folder
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(other)
    else:
        other.mkdir()
    (other / "file").write_bytes(b"a person's")
    place.symlink_to(other)
    before = states(other)
    store = str(project.store)
    for command in (("runs",), ("gc",), ("gc", "--yes"), ("verify",), ("verify", "--set-aside")):
        done = call(command[0], store, *command[1:])
        assert done.code in {0, 2, 75}, (command, done.err)
        assert "Traceback" not in done.err
        if command[0] == "verify":
            assert done.code == 75, command
            assert "link" in done.out
    assert states(other) == before
    assert not place.is_symlink()  # set aside
