"""Stages in a store: what is done, what is damaged, and who wins."""

from dataclasses import replace

import pytest
from support.stores.stage_records import KEY, MODEL, OTHER, TABLE, make_record

from epochal.data.documents import dump_document
from epochal.data.errors import BadStore, CorruptObject, NotDeterministic, NotFound
from epochal.data.hashing import bytes_sha256
from epochal.data.stage_store.records import Artifact, dump_record, load_record
from epochal.data.stage_store.stages import StageStatus, StageStore, stage_folder
from epochal.data.store.open import open_store


@pytest.fixture
def store(store_url):
    return open_store(store_url)


@pytest.fixture
def stages(store):
    return StageStore(store)


def path_of(record, name):
    return f"{stage_folder(record.key)}/{record.artifacts[name].file}"


def replace_object(store, path, data):
    """What a bad disk does: other bytes in the same place."""
    store.delete(path)
    store.put_new(path, data)


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def test_a_committed_stage_is_found_as_it_was_written(stages):
    record = make_record(stages)
    assert stages.lookup([KEY]) == {KEY: StageStatus(None, "started, not yet committed")}
    assert stages.commit(record) == record
    assert stages.lookup([KEY, OTHER]) == {KEY: StageStatus(record), OTHER: StageStatus(None)}
    assert stages.verify(record) == []
    assert stages.read_artifact(record, "model") == MODEL
    with stages.fetch_artifact(record, "observations") as path:
        assert path.read_bytes() == TABLE


def test_objects_lie_where_the_design_says(stages, store):
    record = stages.commit(make_record(stages))
    folder = f"stages/{KEY}"
    assert set(store.listing()) == {
        f"{folder}/{bytes_sha256(MODEL)}.safetensors",
        f"{folder}/{bytes_sha256(TABLE)}.parquet",
        f"{folder}/record.json",
    }
    assert store.read(f"{folder}/record.json") == dump_record(record)


def test_many_stages_are_looked_up_at_once(stages):
    keys = [f"{number:064x}" for number in range(40)]
    for key in keys[::2]:
        stages.commit(make_record(stages, key=key))
    found = stages.lookup(keys)
    assert [key for key in keys if found[key].record is not None] == keys[::2]
    assert all(found[key].record.key == key for key in keys[::2])


def test_an_artifact_that_is_there_is_put_once(stages, store, tmp_path):
    source = tmp_path / "model"
    source.write_bytes(MODEL)
    first = stages.put_artifact(KEY, "safetensors", MODEL)
    assert stages.put_artifact(KEY, "safetensors", source) == first
    assert first == Artifact(
        file=f"{bytes_sha256(MODEL)}.safetensors", sha256=bytes_sha256(MODEL), size=len(MODEL)
    )
    assert len(store.listing()) == 1


@pytest.mark.parametrize("damage", [flipped(MODEL), MODEL[:-1], b"", MODEL + b"more"])
def test_a_damaged_artifact_in_the_way_is_set_aside_and_written_again(stages, store, damage):
    record = make_record(stages)
    path = path_of(record, "model")
    replace_object(store, path, damage)
    with store.scratch() as folder:
        (folder / "model").write_bytes(MODEL)
        stages.put_artifact(KEY, "safetensors", folder / "model")
    assert store.read(path) == MODEL
    assert store.read(f"damaged/{path}.0") == damage


@pytest.mark.parametrize("damage", [flipped(MODEL), MODEL[:-1], b"", MODEL + b"more"])
@pytest.mark.parametrize("how", ["read", "fetch"])
def test_changed_bytes_are_never_given_out(stages, store, damage, how):
    record = stages.commit(make_record(stages))
    path = path_of(record, "model")
    replace_object(store, path, damage)
    assert any("model" in damage.problem for damage in stages.verify(record))
    use = {
        "read": stages.read_artifact,
        "fetch": lambda *args: stages.fetch_artifact(*args).__enter__(),
    }[how]
    with pytest.raises(CorruptObject, match=rf"train of epoch 3 .*{KEY[:12]}.*moved to damaged/"):
        use(record, "model")
    assert store.read(f"damaged/{path}.0") == damage
    assert stages.lookup([KEY])[KEY].record is None
    assert stages.commit(make_record(stages)) == record
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
    assert stages.read_artifact(record, "model") == MODEL


@pytest.mark.parametrize("damage", [MODEL[:-1], b"", MODEL + b"more"])
def test_an_artifact_of_another_size_makes_the_stage_not_done(stages, store, damage):
    record = stages.commit(make_record(stages))
    path = path_of(record, "model")
    replace_object(store, path, damage)
    status = stages.lookup([KEY])[KEY]
    assert status.record is None
    assert f"model has {len(damage)} bytes" in status.problem
    assert status.damaged == (path,)
    assert store.read(path) == damage


def test_a_missing_artifact_makes_the_stage_not_done(stages, store):
    record = stages.commit(make_record(stages))
    store.delete(path_of(record, "model"))
    status = stages.lookup([KEY])[KEY]
    assert (status.record, status.damaged) == (None, ())
    assert "model is missing" in status.problem
    with pytest.raises(CorruptObject, match="model is missing from the store"):
        stages.read_artifact(record, "model")
    with pytest.raises(CorruptObject, match="is missing"), stages.fetch_artifact(record, "model"):
        pass


def test_every_cut_or_flipped_record_is_not_done_and_is_written_again(stages, store):
    record = stages.commit(make_record(stages))
    path = f"{stage_folder(KEY)}/record.json"
    data = store.read(path)
    for number, damage in enumerate([b"", data[: len(data) // 2], data[:-1], flipped(data)]):
        replace_object(store, path, damage)
        status = stages.lookup([KEY])[KEY]
        assert status.record is None
        assert "record.json" in status.problem
        assert status.damaged == (path,)
        assert [damage.problem for damage in stages.verify(record)] == [status.problem]
        assert stages.commit(record) == record
        assert store.read(f"damaged/{path}.{number}") == damage
        assert stages.lookup([KEY])[KEY] == StageStatus(record)


def test_a_record_in_another_stages_folder_is_damage(stages, store):
    record = stages.commit(make_record(stages))
    store.put_new(f"{stage_folder(OTHER)}/record.json", dump_record(record))
    assert "is not the record of stage ffff" in stages.lookup([OTHER])[OTHER].problem


def test_equal_bytes_are_committed_once_and_again(stages, store):
    record = stages.commit(make_record(stages))
    before = store.listing()
    assert stages.commit(make_record(stages)) == record
    assert store.listing() == before


def test_another_environment_adopts_what_stands(stages):
    winner = stages.commit(make_record(stages))
    own = make_record(stages, model=b"other bits", environment="gpu")
    assert stages.commit(own) == winner
    assert stages.lookup([KEY])[KEY].record == winner


def test_another_environment_replaces_what_has_lost_its_artifacts(stages, store):
    lost = stages.commit(make_record(stages))
    store.delete(path_of(lost, "model"))
    own = make_record(stages, model=b"other bits", environment="gpu")
    assert stages.commit(own) == own
    assert stages.lookup([KEY])[KEY] == StageStatus(own)
    assert store.size(f"damaged/{stage_folder(KEY)}/record.json.0") is not None


def test_one_environment_and_two_results_are_named(stages):
    stages.commit(make_record(stages))
    with pytest.raises(NotDeterministic) as caught:
        stages.commit(make_record(stages, model=b"other bits", loss=0.25))
    message = str(caught.value)
    assert f"artifact model: '{bytes_sha256(MODEL)}' → " in message
    assert "value train/loss: 0.30000000000000004 → 0.25" in message
    assert "observations" not in message
    assert "train of epoch 3" in message


def test_other_values_of_the_same_artifacts_are_another_result(stages):
    stages.commit(make_record(stages, loss=0.25))
    with pytest.raises(NotDeterministic, match=r"value train/loss: 0\.25 → 0\.5"):
        stages.commit(make_record(stages, loss=0.5))


def test_an_artifact_that_its_user_rejects_is_set_aside_with_its_record(stages, store):
    record = stages.commit(make_record(stages))
    with (
        pytest.raises(CorruptObject, match=r"model .* was moved to damaged/.*: no weights"),
        stages.fetch_artifact(record, "model"),
    ):
        raise CorruptObject("no weights")
    left = f"{stage_folder(KEY)}/{record.artifacts['observations'].file}"
    assert list(store.listing("stages")) == [left]
    assert len(store.listing("damaged")) == 2


def test_a_result_of_other_parents_replaces_the_old_one(stages, store):
    old = stages.commit(make_record(stages))
    new = make_record(stages, model=b"other bits", consumed="e" * 64)
    assert stages.commit(new) == new
    assert stages.lookup([KEY])[KEY] == StageStatus(new)
    assert store.read(f"damaged/{stage_folder(KEY)}/record.json.0") == dump_record(old)


def test_a_put_whose_answer_was_lost_ends_well(stages, store, monkeypatch):
    put = store._backend.put_new

    def lose_answer(path, source):
        put(path, source)
        put(path, source)  # what a client does that heard nothing

    monkeypatch.setattr(store._backend, "put_new", lose_answer)
    record = stages.commit(make_record(stages))
    assert stages.put_side_file(KEY, "times.json", {"seconds": 1.5}) == {"seconds": 1.5}
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
    assert all(not path.startswith("damaged") for path in store.listing())


def test_the_first_side_file_stands_and_is_returned_to_all(stages):
    assert stages.read_side_file(KEY, "times.json") is None
    assert stages.put_side_file(KEY, "times.json", {"seconds": 1.5}) == {"seconds": 1.5}
    assert stages.put_side_file(KEY, "times.json", {"seconds": 9.0}) == {"seconds": 1.5}
    assert stages.read_side_file(KEY, "times.json") == {"seconds": 1.5}


def test_a_damaged_side_file_is_set_aside_and_written_again(stages, store):
    path = f"{stage_folder(KEY)}/times.json"
    store.put_new(path, b"{half")
    with pytest.raises(CorruptObject, match=r"times\.json"):
        stages.read_side_file(KEY, "times.json")
    assert stages.put_side_file(KEY, "times.json", {"seconds": 9.0}) == {"seconds": 9.0}
    assert store.read(f"damaged/{path}.0") == b"{half"


def test_a_thinned_stage_is_done_without_the_artifacts_that_were_thinned(stages, store):
    record = stages.commit(make_record(stages))
    stages.put_side_file(KEY, "thinned.json", {"artifacts": ["model"]})
    store.delete(path_of(record, "model"))
    assert stages.lookup([KEY])[KEY] == StageStatus(record, pruned=("model",))
    assert stages.verify(record) == []
    store.delete(path_of(record, "observations"))
    assert "observations is missing" in stages.lookup([KEY])[KEY].problem


@pytest.mark.parametrize("body", [b"{half", dump_document({"artifacts": 7})])
def test_a_damaged_list_of_what_was_thinned_excuses_nothing(stages, store, body):
    record = stages.commit(make_record(stages))
    path = f"{stage_folder(KEY)}/thinned.json"
    store.put_new(path, body)
    assert stages.lookup([KEY])[KEY] == StageStatus(record)
    store.delete(path_of(record, "model"))
    status = stages.lookup([KEY])[KEY]
    assert "model is missing" in status.problem
    assert status.damaged == (path,)


# --- no storage needed --------------------------------------------------------------------------


@pytest.fixture
def in_memory():
    return StageStore(open_store("memory://test-stages"))


@pytest.mark.parametrize("key", ["", "abc", KEY.upper(), KEY + "\n", "../" + KEY, KEY[:-1] + "g"])
def test_only_sha256_digests_are_keys(in_memory, key):
    with pytest.raises(BadStore, match="64 hexadecimal"):
        in_memory.lookup([key])
    with pytest.raises(BadStore, match="64 hexadecimal"):
        in_memory.put_artifact(key, "json", b"")


@pytest.mark.parametrize("name", ["record.json", "times", "a/b.json", f"{KEY}.json", ".."])
def test_side_files_take_no_name_of_a_commit(in_memory, name):
    with pytest.raises(BadStore):
        in_memory.put_side_file(KEY, name, {})


def test_an_unknown_artifact_is_named_with_the_known_ones(in_memory):
    record = make_record(in_memory)
    with pytest.raises(NotFound, match="no artifact 'ema'; it has model, observations"):
        in_memory.read_artifact(record, "ema")


def test_a_record_keeps_every_field_and_bit(in_memory):
    record = make_record(in_memory)
    data = dump_record(record)
    assert load_record(data, name="x", key=KEY) == record
    assert dump_record(load_record(data, name="x", key=KEY)) == data


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"epoch": "3"},
        {"epoch": 3.0},
        {"epoch": True},
        {"stage": "Train/.."},
        {"stage": None},
        {"key": OTHER},
        {"environment_digest": 1},
        {"consumed": {"parent": "short"}},
        {"values": []},
        {"artifacts": {"../x": {"file": f"{KEY}.json", "sha256": KEY, "size": 1}}},
        {"artifacts": {"model": {"file": f"../{KEY}.json", "sha256": KEY, "size": 1}}},
        {"artifacts": {"model": {"file": f"{OTHER}.json", "sha256": KEY, "size": 1}}},
        {"artifacts": {"model": {"file": f"{KEY}.json/..", "sha256": KEY, "size": 1}}},
        {"artifacts": {"model": {"file": f"{KEY}.json", "sha256": KEY, "size": -1}}},
        {"artifacts": {"model": {"file": f"{KEY}.json", "sha256": KEY, "size": "1"}}},
        {"artifacts": {"model": {"file": f"{KEY}.json", "sha256": KEY, "size": 1, "more": 1}}},
        {"more": 1},
        {"format": 0},
        {"format": "1"},
    ],
)
def test_a_record_with_any_other_field_is_damage(in_memory, change):
    from epochal.data.documents import load_document

    body = load_document(dump_record(make_record(in_memory)), name="x")
    with pytest.raises(CorruptObject, match=r"stages/record\.json"):
        load_record(dump_document(body | change), name="stages/record.json", key=KEY)


def test_a_record_of_a_newer_version_asks_for_that_version(in_memory):
    from epochal.data.documents import load_document

    body = load_document(dump_record(make_record(in_memory)), name="x")
    with pytest.raises(BadStore, match="install the newer version"):
        load_record(dump_document(body | {"format": 2, "new": 1}), name="x", key=KEY)


def test_a_record_with_what_json_cannot_hold_is_not_written(in_memory):
    record = make_record(in_memory)
    with pytest.raises(ValueError, match="cannot hold nan"):
        in_memory.commit(replace(record, values={"loss": float("nan")}))
    assert in_memory.lookup([KEY])[KEY].record is None
