"""Commits inside an epoch: whole or absent, the newest intact one counts, none is left over."""

import os
import signal

import numpy as np
import pytest
from support.runs.bare_run import BareRun
from support.runs.epoch_commits import durable_at_once
from support.runs.project import Project, environment
from support.stores.mid_epoch_commits import KEY, commit

from epochal.data.documents import dump_document
from epochal.data.errors import Interrupted, TrainingFailed
from epochal.data.stage_store.mid_epoch import MidEpochStore
from epochal.data.store.open import open_store
from epochal.tasks.computing.stage_times import MAX_TIMES, StageTimes
from epochal.tasks.trainer.interruption import Interruption

PARTIAL = f"stages/{KEY}/partial"


def manifests(store):
    """The micro-steps of the commits that are there."""
    names = [path.rpartition("/")[2] for path in store.listing(PARTIAL)]
    return sorted(int(name.removesuffix(".json")) for name in names if name.endswith(".json"))


def newest(store, *, fits=lambda _: True):
    notices = []
    with MidEpochStore(store, KEY).newest(fits=fits, notice=notices.append) as found:
        step = None if found is None else found.micro_steps
        data = None if found is None else found.tensors.read_bytes()
    return step, data, notices


def test_the_newest_commit_is_found_and_two_are_kept(store_url):
    store = open_store(store_url)
    assert newest(store)[0] is None
    for micro_steps in (3, 6, 9, 12):
        commit(store, micro_steps)
    assert newest(store)[0] == 12
    names = sorted(path.rpartition("/")[2] for path in store.listing(PARTIAL))
    assert [name for name in names if name.endswith(".json")] == [
        "000000000009.json", "000000000012.json",
    ]  # fmt: skip
    assert sum(name.endswith(".safetensors") for name in names) == 2


def test_a_damaged_commit_falls_back_to_the_one_before_it(store_url):
    store = open_store(store_url)
    commit(store, 3)
    commit(store, 6)
    blobs = {newest(store)[1]: 6}
    for path in list(store.listing(PARTIAL)):
        if path.endswith(".safetensors") and store.read(path) in blobs:
            data = bytearray(store.read(path))
            data[-1] ^= 1
            store.delete(path)
            store.put_new(path, bytes(data))
    step, _, notices = newest(store)
    assert step == 3
    assert "an older commit of the epoch is used" in notices[0]


def test_a_damaged_manifest_falls_back_too(store_url):
    store = open_store(store_url)
    commit(store, 3)
    commit(store, 6)
    path = f"{PARTIAL}/000000000006.json"
    data = store.read(path)
    store.delete(path)
    store.put_new(path, data[:-20])
    step, _, notices = newest(store)
    assert (step, len(notices)) == (3, 1)
    commit(store, 6)  # the damaged one gives way
    assert newest(store)[0] == 6


def test_a_commit_that_is_listed_and_gone_is_passed_over(store_url, monkeypatch):
    store = open_store(store_url)
    for micro_steps in (3, 6, 9):
        commit(store, micro_steps)
    before = store.listing(PARTIAL)
    store.delete(f"{PARTIAL}/000000000009.json")
    # By another writer, or by an old answer of the storage.
    monkeypatch.setattr(store, "listing", lambda folder: before)
    step, _, notices = newest(store)
    assert (step, len(notices)) == (6, 1)
    assert [one.micro_steps for one in MidEpochStore(store, KEY).listed()] == [6]
    commit(store, 12)


def test_damaged_tensors_in_the_way_of_a_commit_give_way(store_url):
    store = open_store(store_url)
    commit(store, 3, value=5)
    path = next(path for path in store.listing(PARTIAL) if path.endswith(".safetensors"))
    data = store.read(path)
    store.delete(path)
    store.put_new(path, data[:-1] + bytes([data[-1] ^ 1]))
    commit(store, 6, value=5)
    assert newest(store) == (6, data, [])


@pytest.mark.parametrize("number", [6, 12])
def test_a_commit_under_the_number_of_another_is_damage(store_url, number):
    store = open_store(store_url)
    commit(store, 9)
    path = f"{PARTIAL}/000000000009.json"
    store.put_new(f"{PARTIAL}/{number:012d}.json", store.read(path))
    store.delete(path)
    step, _, notices = newest(store)
    assert (step, len(notices)) == (None, 1)


def test_a_commit_of_the_format_before_is_passed_over_and_said(store_url):
    store = open_store(store_url)
    commit(store, 3)
    tensors = {"sha256": "a" * 64, "size": 4}
    old = {"format": 1, "micro_steps": 6, "tensors": tensors, "body": {}}
    store.put_new(f"{PARTIAL}/000000000006.json", dump_document(old))
    step, _, notices = newest(store)
    assert step == 3
    assert "of another version of Epochal" in notices[0]
    for micro_steps in (1, 4, 5):
        commit(store, micro_steps)
        assert newest(store)[0] == max(3, micro_steps)
    assert manifests(store) == [4, 5, 6]
    commit(store, 7)
    assert manifests(store) == [5, 7]


def test_later_commits_that_do_not_fit_cost_no_new_one(store_url):
    store = open_store(store_url)
    for micro_steps in (8, 9):
        commit(store, micro_steps, environment="old")
    for micro_steps in (2, 4, 6, 7):
        commit(store, micro_steps, environment="new")
        assert newest(store, fits=lambda body: body["environment"] == "new")[0] == micro_steps
    assert manifests(store) == [6, 7, 8, 9]
    assert newest(store)[0] == 9
    for micro_steps in (10, 11):
        commit(store, micro_steps, environment="new")
    assert manifests(store) == [10, 11]
    assert len(store.listing(PARTIAL)) == 4


def test_a_commit_that_does_not_fit_is_passed_over(store_url):
    store = open_store(store_url)
    commit(store, 3, parent="one")
    commit(store, 6, parent="other")
    assert newest(store, fits=lambda body: body["parent"] == "one")[0] == 3
    assert newest(store, fits=lambda _: False)[0] is None


def test_committing_a_step_twice_changes_nothing(store_url):
    store = open_store(store_url)
    commit(store, 3)
    before = store.listing(PARTIAL)
    commit(store, 3)
    assert store.listing(PARTIAL) == before
    commit(store, 3, value=7)  # another environment's twin: the first stands
    assert newest(store)[0] == 3


def test_clearing_leaves_nothing(store_url):
    store = open_store(store_url)
    commit(store, 3)
    MidEpochStore(store, KEY).clear()
    assert store.listing(PARTIAL) == {}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Project(tmp_path / "project", epochs=3)


OFTEN = {"checkpoint__every_updates": 1}


@pytest.fixture
def whole(tmp_path, project):
    return BareRun(project.config, store=f"file://{tmp_path}/whole")().digests


def test_commits_inside_epochs_change_no_byte_and_are_gone_at_the_end(project, whole):
    run = BareRun(project.config, **OFTEN)()
    assert run.digests == whole
    assert not list(project.store.glob("stages/*/partial/*"))


@pytest.mark.parametrize("call", [5, 12, 13, 20, 33])
def test_an_epoch_goes_on_from_its_newest_commit_to_the_same_bytes(call, project, whole):
    # 12 micro-steps in a full epoch, two to an update; dropout, BatchNorm, AdamW, easy_skip
    with environment(FAIL_AT_CALL=str(call)), pytest.raises(TrainingFailed):
        BareRun(project.config, **OFTEN)()
    again = BareRun(project.config, **OFTEN)()
    assert again.digests == whole
    if call % 12 > 3:
        assert again.resumed, "nothing was resumed"


def stop_at(monkeypatch, number, *, at):
    """Sends the process a signal after that many micro-steps, as Prefect or a terminal does."""
    from epochal.tasks.computing.watch import EpochWatch

    original, count = EpochWatch.__call__, [0]

    def call(self, progress):
        count[0] += 1
        if count[0] == at:
            os.kill(os.getpid(), number)
        original(self, progress)

    monkeypatch.setattr(EpochWatch, "__call__", call)


@pytest.mark.parametrize("at", [1, 4, 7, 12, 13, 22])
def test_a_signal_is_obeyed_after_a_commit_at_that_very_micro_step(at, project, whole, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, signal.SIGINT, at=at)
        with pytest.raises(KeyboardInterrupt):
            BareRun(project.config)()
    again = BareRun(project.config)()
    assert list(again.resumed.values()) == [at if at <= 12 else at - 12]
    assert again.digests == whole


def test_the_metrics_of_a_commit_are_offered_for_delivery_and_are_those_of_the_epoch(
    project, monkeypatch
):
    durable_at_once(monkeypatch)
    run = BareRun(project.config, epochs=1, **OFTEN)()
    parts = run.parts
    assert [len(part.metrics["train/loss"]) for part in parts] == [1, 2, 3, 4, 5, 6]
    record = run.view.record_of(run.view.stage("train", 0))
    from epochal.data.tables.writing import UPDATES, read_table

    with run.session.stage_store.fetch_artifact(record, "updates") as path:
        columns = read_table(path, schema=UPDATES).columns
    losses = columns["value"][columns["key"] == "train/loss"]
    for part in parts:
        found = part.metrics["train/loss"]
        assert np.array_equal(found, losses[: len(found)])
        assert part.updates_before == 0


def test_commits_of_another_environment_are_not_gone_on_from(project, whole, monkeypatch):
    with environment(FAIL_AT_CALL="8"), pytest.raises(TrainingFailed):
        BareRun(project.config, **OFTEN)()
    run = BareRun(project.config, **OFTEN)
    run.session.environment["threads"] = 99
    run()
    assert not run.resumed


def test_a_second_signal_is_obeyed_at_once():
    interruption = Interruption()

    def twice():
        with interruption.noted():
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.came
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal was not obeyed")

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_without_a_handler_becomes_an_interruption():
    interruption = Interruption()
    with pytest.raises(Interrupted, match="SIGTERM came"), interruption.noted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.noted():
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.came
    finally:
        signal.signal(signal.SIGINT, before)


def test_anchors_stay_few_and_in_order(monkeypatch):
    moment = [1000]
    monkeypatch.setattr("epochal.tasks.computing.stage_times.now_ms", lambda: moment[0])
    times = StageTimes()
    for update in range(1, 5000):
        moment[0] += 500
        times.add(update)
    found = times.until(5000)
    assert len(found) <= MAX_TIMES + 2
    assert found == sorted(found)
    assert found[0] == [0, 1000]
    assert found[-1] == [5000, moment[0]]
    again = StageTimes(found)
    assert again.until(5000) == found
