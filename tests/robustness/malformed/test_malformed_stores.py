"""A store's tree from an enemy: links that lead out, files for folders, names of no object."""

import os

import pytest
from support.stores.malformed_bytes import replaced
from support.stores.stage_records import KEY, MODEL, make_record

from epochal.data.errors import BadStore, CorruptObject, PreflightFailed
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.stage_store.stages import StageStatus, StageStore
from epochal.data.store.hashed_files import write_checksummed
from epochal.data.store.open import open_store
from epochal.tasks.runs.run_plans import find_plan, run_names
from epochal.tasks.upkeep import find_garbage, verify_store

FOLDER = f"stages/{KEY}"


@pytest.fixture
def outside(tmp_path):
    """A folder beside the store that nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious.txt").write_text("do not touch")
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(root):
    return open_store(f"file://{root}")


@pytest.fixture
def stages(store):
    return StageStore(store)


def untouched(outside):
    return {path.name: path.read_text() for path in outside.iterdir()} == {
        "precious.txt": "do not touch"
    }


def link(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


# --- symbolic links -----------------------------------------------------------------------------


def test_a_linked_object_is_named_and_its_target_is_not_read(store, root, outside):
    link(root / "a/b.bin", outside / "precious.txt")
    for use in (store.read, lambda path: store.fetch(path).__enter__()):
        with pytest.raises(CorruptObject, match=r"a/b\.bin: a symbolic link"):
            use("a/b.bin")
    assert "a/b.bin" in store.listing()
    with pytest.raises(FileExistsError):
        store.put_new("a/b.bin", b"1")
    assert store.set_aside("a/b.bin", "a link") == "damaged/a/b.bin.0"
    assert (root / "damaged/a/b.bin.0").is_symlink()
    store.put_new("a/b.bin", b"1")
    assert store.read("a/b.bin") == b"1"
    assert untouched(outside)


def test_deleting_a_linked_object_deletes_the_link(store, root, outside):
    link(root / "a", outside / "precious.txt")
    store.delete("a")
    assert not (root / "a").is_symlink()
    assert untouched(outside)


def test_a_linked_folder_is_named_and_nothing_goes_through_it(store, root, outside):
    link(root / "a", outside)
    for use in (
        store.read,
        store.size,
        store.delete,
        lambda path: store.put_new(path, b"1"),
        lambda path: store.set_aside(path, "x"),
        lambda path: store.fetch(path).__enter__(),
    ):
        with pytest.raises(CorruptObject, match=r"store/a: a symbolic link"):
            use("a/precious.txt")
    with pytest.raises(CorruptObject, match=r"store/a: a symbolic link"):
        store.listing("a/below")
    assert untouched(outside)


def test_the_store_itself_may_be_a_link(tmp_path, outside):
    (tmp_path / "disk").mkdir()
    link(tmp_path / "linked", tmp_path / "disk")
    store = open_store(f"file://{tmp_path}/linked")
    store.preflight()
    store.put_new("a/b", b"1")
    assert (tmp_path / "disk/a/b").read_bytes() == b"1"


def test_a_linked_scratch_folder_fails_the_preflight(store, root, outside):
    (outside / "one.lock").write_text("")
    link(root / "tmp", outside)
    with pytest.raises(PreflightFailed, match=r"store/tmp: a symbolic link"):
        store.preflight()
    assert (outside / "one.lock").exists()


@pytest.mark.parametrize("name", [".", "..", "kept"])
def test_the_preflight_deletes_no_folder_that_a_planted_lock_names(store, root, name):
    store.put_new("a", b"1")
    (root / "tmp" / "kept").mkdir(parents=True)
    (root / "tmp" / f"{name}.lock").write_text("")
    open_store(f"file://{root}").preflight()
    assert store.read("a") == b"1"
    assert (root / "tmp" / "kept").is_dir()


def test_the_preflight_deletes_nothing_through_a_planted_link(store, root, outside):
    store.put_new("a", b"1")
    (outside / "file").write_text("theirs")
    link(root / "tmp" / ("0" * 16), outside)
    (root / "tmp" / ("0" * 16 + ".lock")).write_text("")
    open_store(f"file://{root}").preflight()
    assert (outside / "file").read_text() == "theirs"


def test_commits_in_a_linked_folder_delete_nothing_outside(store, stages, root, outside):
    (outside / "000000000003.json").write_text("{}")
    before = sorted(path.name for path in outside.iterdir())
    link(root / FOLDER / "partial", outside)
    status = stages.lookup([KEY])[KEY]
    assert "partial is a file or a link, expected a folder" in status.problem
    commits = MidEpochStore(store, KEY)
    with commits.newest(fits=lambda _: True, notice=lambda _: None) as found:
        assert found is None
    with store.scratch() as scratch:
        written = write_checksummed(scratch / "x", [b"tensors"])
        with pytest.raises(CorruptObject, match="partial: a symbolic link"):
            commits.commit(3, written, {})
    commits.clear()
    assert sorted(path.name for path in outside.iterdir()) == before
    assert not (root / FOLDER / "partial").is_symlink()


@pytest.mark.parametrize("name", ["record.json", "model", "times.json"])
def test_a_linked_file_of_a_stage_is_damage_and_written_again(
    store, stages, root, outside, name
):  # fmt: skip
    record = stages.commit(make_record(stages))
    stages.put_side_file(KEY, "times.json", {"seconds": 1})
    file = record.artifacts["model"].file if name == "model" else name
    path = root / FOLDER / file
    path.rename(outside / file)  # the bytes are right, and elsewhere
    link(path, outside / file)
    if name != "times.json":
        status = stages.lookup([KEY])[KEY]
        assert status.record is None
        assert status.damaged == (f"{FOLDER}/{file}",)
        assert name in status.problem
    assert stages.commit(make_record(stages)) == record
    stages.put_side_file(KEY, "times.json", {"seconds": 1})
    assert not path.is_symlink()
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
    assert (outside / file).exists()


def test_a_stage_in_a_linked_folder_is_not_done_and_done_anew(store, stages, root, outside):
    record = stages.commit(make_record(stages))
    (root / FOLDER).rename(outside / "stage")
    link(root / FOLDER, outside / "stage")
    status = stages.lookup([KEY])[KEY]
    assert status.damaged == (FOLDER,)
    assert "a file or a link" in status.problem
    store.set_aside(FOLDER, status.problem)
    assert stages.commit(make_record(stages)) == record
    assert not (root / FOLDER).is_symlink()


def test_all_stages_behind_a_link_are_named_at_once(stages, root, outside):
    link(root / "stages", outside)
    with pytest.raises(CorruptObject, match=r"store/stages: a symbolic link"):
        stages.commit(make_record(stages))
    assert untouched(outside)


# --- files for folders, folders for files, and things that are neither --------------------------


@pytest.mark.parametrize("full", [False, True])
def test_a_folder_where_an_object_should_be_makes_way(store, stages, root, full):
    record = make_record(stages)
    folder = root / FOLDER / "record.json"
    folder.mkdir()
    if full:
        (folder / "x").write_text("1")
    assert stages.lookup([KEY])[KEY].record is None
    assert stages.commit(record) == record
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
    assert (root / "damaged" / FOLDER / "record.json.0").is_dir()


def test_a_folder_where_an_artifact_should_be_makes_way(stages, root):
    record = make_record(stages)
    path = root / stages.artifact_path(record, "model")
    path.unlink()
    path.mkdir()
    assert stages.put_artifact(KEY, "safetensors", MODEL) == record.artifacts["model"]
    assert path.read_bytes() == MODEL


@pytest.mark.parametrize("place", [FOLDER, f"{FOLDER}/partial"])
def test_a_file_where_a_folder_should_be_is_damage(store, stages, place):
    store.put_new(place, b"in the way")
    status = stages.lookup([KEY])[KEY]
    assert f"{place} is a file or a link, expected a folder" in status.problem
    assert status.damaged == (place,)
    store.set_aside(place, status.problem)
    record = stages.commit(make_record(stages))
    assert stages.lookup([KEY])[KEY] == StageStatus(record)


def test_a_file_that_has_a_folders_name_is_listed_alone_on_every_storage(store_url):
    store = open_store(store_url)
    store.put_new("a/b", b"1")
    assert store.listing("a/b") == {"a/b": 1}


def test_a_pipe_is_refused_and_nobody_waits_for_a_writer(store, root):
    (root / "a").mkdir(parents=True)
    os.mkfifo(root / "a/record.json")
    with pytest.raises(CorruptObject, match=r"a/record\.json: a pipe, socket or device"):
        store.read("a/record.json")
    assert store.size("a/record.json") is None
    assert store.listing() == {}


# --- names --------------------------------------------------------------------------------------


def test_names_that_no_object_has_are_nobodys(store, root):
    store.put_new("runs/digits/plans/000001.json", b"no plan")
    for name in ("runs/\udcff\udcfe/plans/000001.json", "runs/a b/x", "stages/a\nb/x", "\u202e"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    assert list(store.listing()) == ["runs/digits/plans/000001.json"]
    assert run_names(store.listing("runs")) == ["digits"]
    assert len(verify_store(store).problems) == 1
    assert find_garbage(store).problem is not None


@pytest.mark.parametrize("reference", ["run@²", "run@" + "9" * 5000, "run@-1", "run@1_0", "run@"])
def test_a_generation_is_a_number_of_few_digits(store, reference):
    from epochal.data.errors import NotFound

    with pytest.raises(NotFound, match="NAME@GENERATION"):
        find_plan(store, reference)


@pytest.mark.parametrize("reference", ["../x", "/etc", "a/b/../c", "a\0b", "é"])
def test_a_runs_name_never_leaves_the_store(store, reference):
    with pytest.raises(BadStore, match="cannot name an object"):
        find_plan(store, reference)


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 100, b"PAR1"])
def test_any_bytes_in_any_place_of_a_stage_leave_it_not_done(stages, store, data):
    record = stages.commit(make_record(stages))
    stages.put_side_file(KEY, "thinned.json", {"artifacts": []})
    for path in list(store.listing(FOLDER)):
        before = store.read(path)
        replaced(store, path, data)
        status = stages.lookup([KEY])[KEY]
        assert status.record is None or path.endswith("thinned.json")
        replaced(store, path, before)
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
