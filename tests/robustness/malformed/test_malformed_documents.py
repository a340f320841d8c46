"""Documents from an enemy: read as what they are, or refused with the file's name. Nothing else."""

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.stage_keys import FACTS, config
from support.stores.malformed_bytes import (
    STRANGE,
    document,
    mangled,
    mutated,
    places,
    single_changes,
    told,
)
from support.stores.stage_records import KEY, make_record

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import BadStore, CorruptObject
from epochal.data.inspection.dataset import DatasetInfo
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.stage_store.records import dump_record, load_record
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.tasks.computing.stage_times import checked_times
from epochal.tasks.goodput.run import shown
from epochal.tasks.goodput.totals import checked_totals
from epochal.tasks.runs.run_inputs import read_known
from epochal.tasks.runs.run_plans import read_plans, record_plan
from epochal.tasks.stages.registry import list_stages

NAME = "stages/record.json"


def new_store():
    return open_store(f"memory://{uuid.uuid4().hex}/store")


RECORD = load_document(dump_record(make_record(StageStore(new_store()))), name="x")
KNOWN = {
    "fingerprint": "a" * 64, "num_samples": 12, "seconds": 11.5, "index_ids": True,
    "label_min": 0, "label_max": 2,
}  # fmt: skip


def plan_body():
    store = new_store()
    made = config(sampling={"policy": "none"}, epochs=1)
    record_plan(store, made, FACTS, list_stages(made, FACTS))
    return load_document(store.read("runs/run/plans/000001.json"), name="x")


PLAN = plan_body()


def read_record(body):
    """What is read of a record, or None if it is refused in our own words."""
    try:
        data = dump_document(body)
    except (TypeError, ValueError):
        return None
    try:
        return load_record(data, name=NAME, key=KEY)
    except (CorruptObject, BadStore) as error:
        told(error, NAME)
        return None


def test_a_record_with_any_one_value_changed_is_refused_or_is_what_it_says():
    read = 0
    for _, body in single_changes(RECORD):
        record = read_record(body)
        if record is None:
            continue
        read += 1  # another number, text or tree where any may stand
        assert load_document(dump_record(record), name="x") == body
    assert read > 10


@given(mutated(RECORD))
@settings(max_examples=300, deadline=None)
def test_a_record_with_several_values_changed_is_refused_or_is_what_it_says(body):
    record = read_record(body)
    if record is not None:
        assert load_document(dump_record(record), name="x") == body


@given(mangled(dump_document(RECORD)))
@settings(max_examples=300, deadline=None)
def test_mangled_bytes_of_a_record_are_refused_or_the_same(data):
    try:
        record = load_record(data, name=NAME, key=KEY)
    except CorruptObject as error:
        told(error, NAME)
    else:
        assert dump_record(record) == data


def read_plan(body):
    store = new_store()
    store.put_new("runs/run/plans/000001.json", dump_document(body))
    return read_plans(store, "run")


def dumpable(body):
    try:
        dump_document(body)
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_plan_with_any_one_value_changed_is_unreadable_or_lists_to_the_end(every):
    for path, body in list(single_changes(PLAN))[::every]:
        if not dumpable(body):
            continue
        for entry in read_plan(body):
            plan = entry.plan
            assert plan.run == "run", path
            assert plan.reference.startswith("run@")
            assert all(len(stage.key) == 64 for stage in plan.stages)
            found = plan.run_config()
            if found is not None:
                list_stages(found, plan.run_inputs())


@given(mutated(PLAN))
@settings(max_examples=80, deadline=None)
def test_a_plan_with_several_values_changed_is_unreadable_or_lists_to_the_end(body):
    if not dumpable(body):
        return
    for entry in read_plan(body):
        if (found := entry.plan.run_config()) is not None:
            list_stages(found, entry.plan.run_inputs())


@pytest.mark.parametrize(
    "name", ["../secret.py", "/etc/secret.py", "a/../../x.py", "id_rsa", "a//b.py", "./x.py"]
)
def test_a_plan_names_no_file_outside_the_users_folder(name):
    body = {**PLAN, "sources": {"model": {name: "a" * 64}}}
    assert read_plan(body) == []
    assert read_plan({**PLAN, "sources": {"model": {"layers/net.py": "a" * 64}}}) != []


def test_a_plan_of_another_run_is_not_read():
    assert read_plan({**PLAN, "run": "another"}) == []


def test_what_is_remembered_of_data_is_of_its_types_or_is_forgotten():
    path = "fingerprints/x.json"
    for _, body in single_changes(KNOWN):
        if not dumpable(body):
            continue
        store = new_store()
        store.put_new(path, dump_document(body))
        known = read_known(store, path)
        if known is not None:
            fields = DatasetInfo.model_fields.items()
            unset = {name: one.default for name, one in fields if not one.is_required()}
            assert known.model_dump() == unset | body
            assert known.num_samples > 0
    assert isinstance(DatasetInfo(**KNOWN), DatasetInfo)


@pytest.mark.parametrize("value", STRANGE, ids=repr)
def test_a_list_of_thinned_artifacts_that_is_none_excuses_nothing(value):
    if value == [] or not dumpable({"artifacts": value}):
        return
    store = new_store()
    stages = StageStore(store)
    record = stages.commit(make_record(stages))
    store.put_new(f"stages/{KEY}/thinned.json", dump_document({"artifacts": value}))
    store.delete(stages.artifact_path(record, "model"))
    status = stages.lookup([KEY])[KEY]
    assert status.record is None
    assert "model is missing" in status.problem


ANCHORS = [[0, 1_700_000_000_000], [7, 1_700_000_009_000]]


def test_anchors_of_an_epoch_are_pairs_of_counts_or_damage():
    for _, body in single_changes({"anchors": ANCHORS}):
        try:
            found = checked_times(body.get("anchors"))
        except CorruptObject:
            continue
        assert all(0 <= one <= 2**53 for pair in found for one in pair)
        assert all(type(one) is int for pair in found for one in pair)
    assert checked_times(ANCHORS) == ANCHORS
    with pytest.raises(CorruptObject, match="pairs"):
        checked_times([[0, 1]] * 100_000)


SPENT = {
    "seconds": {"data": 1.25, "forward_backward": 30.5, "lost": 0.000001}, "samples": 180,
    "resumed": 2, "unknown_losses": 1, "peak_host_bytes": 1 << 30, "peak_device_bytes": 1 << 34,
    "flops": 1e15, "possible_flops": 4e15,
}  # fmt: skip


def test_what_a_stage_has_cost_is_finite_and_not_negative_or_damage():
    read = 0
    for where, body in single_changes(SPENT):
        if not dumpable(body):
            continue
        try:
            found = checked_totals(body)
        except CorruptObject:
            continue
        read += 1
        assert 0 <= found.wall_seconds < 1e11, where
        assert all(0 <= spent <= 1e10 for spent in found.seconds.values()), where
        assert type(found.samples) is int, where
        dump_document(found.body())
        dump_document(shown(found))
    assert read > 10
    assert checked_totals(SPENT).body() == SPENT


def manifest(store):
    from support.stores.mid_epoch_commits import commit

    commit(store, 3)
    path = f"stages/{'a' * 64}/partial/000000000003.json"
    return path, store.read(path)


def newest(store):
    with MidEpochStore(store, "a" * 64).newest(fits=lambda _: True, notice=lambda _: None) as one:
        return None if one is None else one.micro_steps


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_manifest_with_any_one_value_changed_is_passed_over_or_is_the_commit(every):
    store = new_store()
    path, data = manifest(store)
    body = load_document(data, name="x")
    free = 0
    for where, changed in list(single_changes(body))[::every]:
        if not dumpable(changed):
            continue
        store.delete(path)
        store.put_new(path, dump_document(changed))
        found = newest(store)
        assert found in (None, 3), where
        free += found == 3
        assert where[0] != "micro_steps" or found is None or changed["micro_steps"] == 3
    assert free, "the body is the caller's"


TREES = [RECORD, PLAN, KNOWN]


@pytest.mark.slow
@given(st.sampled_from(TREES).flatmap(lambda tree: mangled(dump_document(tree))))
@settings(max_examples=20_000, deadline=None)
def test_mangled_documents_are_refused_or_the_same(data):
    try:
        body = load_document(data, name=NAME)
    except CorruptObject as error:
        told(error, NAME)
    else:
        assert body in TREES


@pytest.mark.slow
@given(st.sampled_from([RECORD, PLAN]).flatmap(mutated))
@settings(max_examples=5_000, deadline=None)
def test_mutated_documents_end_in_our_own_words(body):
    if not dumpable(body):
        return
    read_record(body)
    read_plan(body)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":"\\ud800"}', None),  # half a character is a text of JSON
        ('{"a":' + "1" * 4301 + "}", "no JSON document"),
        ('{"a":-1e400}', "float values"),
        ('{"a":1,"\\u0061":2}', "digest"),
        ('{"a":[' * 40_000, "lists and objects"),
        ('{"a":01}', "no JSON document"),
        ('{"a":1}\x00', "no JSON document"),
        ('{"a":"\x01"}', "no JSON document"),
        ('{"a":1,}', "no JSON document"),
        ('{"a":/**/1}', "no JSON document"),
    ],
)
def test_what_json_parsers_disagree_on_is_refused(text, told):
    if told is None:
        assert load_document(document(text), name=NAME) == json.loads(text)
        return
    with pytest.raises(CorruptObject, match=f"{NAME}.*{told}"):
        load_document(document(text), name=NAME)


def test_every_place_of_a_tree_is_visited():
    assert list(places({"a": [1, {"b": 2}], "c": {}})) == [
        (), ("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",),
    ]  # fmt: skip


def test_a_document_larger_than_its_limit_is_not_read_into_memory(monkeypatch):
    store = new_store()
    store.put_new("fingerprints/x.json", b" " * (1 << 20))
    asked = []
    read = store._backend.read

    def noted(path, *, max_bytes):
        asked.append(max_bytes)
        return read(path, max_bytes=max_bytes)

    monkeypatch.setattr(store._backend, "read", noted)
    assert read_known(store, "fingerprints/x.json") is None
    assert asked == [1 << 17]
