"""A storage that does not answer is waited for, as long as the run's patience lasts."""

import errno

import pytest

from epochal.data.errors import ConfigError, StoreUnavailable
from epochal.data.store import retry as patience
from epochal.data.store.failures import is_transient
from epochal.data.store.open import open_store
from epochal.data.store.retry import DEFAULT_S, HURRIED_S, RetryPolicy
from epochal.data.testing.faults import injected
from epochal.data.testing.plan import FaultPlan


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Pauses take no time, and the clock runs by them."""
    pauses = []
    monkeypatch.setattr(patience.time, "sleep", pauses.append)
    monkeypatch.setattr(patience.time, "monotonic", lambda: sum(pauses))
    return pauses


def patient_store(tmp_path, plan, told, seconds=60.0, **more):
    with injected(plan):
        store = open_store(f"file://{tmp_path}/store")
    store.retry_with(RetryPolicy(seconds, notice=told.append, **more))
    return store


def operations(store):
    store.put_new("a", b"1")
    assert store.read("a") == b"1"
    assert store.size("a") == 1
    assert list(store.listing()) == ["a"]
    with store.fetch("a") as path:
        assert path.read_bytes() == b"1"
    assert store.set_aside("a", "a test") == "damaged/a.0"
    store.delete("damaged/a.0")
    return 7


@pytest.mark.parametrize("at", range(1, 8))
def test_each_operation_is_tried_again_until_the_storage_answers(at, tmp_path, slept):
    told = []
    plan = FaultPlan("timeout", at=at, count=4)
    assert operations(patient_store(tmp_path, plan, told)) == 7
    assert all(
        pause / 2 <= nap <= pause for nap, pause in zip(slept, [0.25, 0.5, 1.0, 2.0], strict=True)
    )
    assert len(told) == 1
    assert "does not answer" in told[0]


def test_it_is_told_again_for_the_next_time(tmp_path):
    told = []
    plan = FaultPlan("timeout", at=1)
    store = patient_store(tmp_path, plan, told)
    store.put_new("a", b"1")
    plan.at = len(plan.operations) + 1
    store.put_new("b", b"1")
    assert len(told) == 2


def test_patience_ends(tmp_path, slept):
    store = patient_store(tmp_path, FaultPlan("timeout", at=1, count=1000), [], seconds=9.0)
    with pytest.raises(StoreUnavailable, match="timed out|TimeoutError"):
        store.put_new("a", b"1")
    assert sum(slept) == pytest.approx(9.0, abs=patience.MAX_PAUSE_S)


def test_a_run_that_is_being_ended_waits_less(tmp_path, slept):
    plan = FaultPlan("timeout", at=1, count=1000)
    store = patient_store(tmp_path, plan, [], hurried=lambda: sum(slept) > 2)
    with pytest.raises(StoreUnavailable):
        store.read("a")
    assert sum(slept) <= HURRIED_S


@pytest.mark.parametrize("kind", ["enospc", "eio"])
def test_what_does_not_pass_by_itself_is_told_at_once(kind, tmp_path, slept):
    store = patient_store(tmp_path, FaultPlan(kind, at=1), [])
    with pytest.raises(StoreUnavailable):
        store.put_new("a", b"1")
    assert slept == []


def test_without_patience_a_failure_is_told_at_once(tmp_path, slept):
    with injected(FaultPlan("timeout", at=1)):
        store = open_store(f"file://{tmp_path}/store")
    with pytest.raises(StoreUnavailable):
        store.put_new("a", b"1")
    assert slept == []


def test_a_write_whose_answer_got_lost_says_that_something_is_there(tmp_path):
    store = patient_store(tmp_path, FaultPlan("lost_answer", at=1), [])
    with pytest.raises(FileExistsError):
        store.put_new("a", b"1")
    assert store.read("a") == b"1"


def test_a_file_whose_handing_over_lost_its_answer_is_there(tmp_path):
    store = patient_store(tmp_path, FaultPlan("lost_answer", at=2), [])
    with store.scratch() as folder:
        source = folder / "object"
        source.write_bytes(b"12345678")
        with pytest.raises(FileExistsError):  # as of any object that is there already
            store.put_new("a", source)
    assert store.read("a") == b"12345678"


def test_a_file_that_was_never_there_is_named(tmp_path):
    store = patient_store(tmp_path, FaultPlan(), [])
    with pytest.raises(FileNotFoundError):
        store.put_new("a", tmp_path / "absent")


def test_a_silent_or_busy_storage_is_known_from_a_wrong_one():
    pytest.importorskip("botocore")
    from aiohttp import ClientConnectionError
    from botocore.exceptions import (
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
        ReadTimeoutError,
    )

    def answer(status, code):
        body = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        error = OSError(errno.EIO, "as s3fs has it")
        error.__cause__ = ClientError(body, "PutObject")
        return error

    url = {"endpoint_url": "http://127.0.0.1:1"}
    silent = [EndpointConnectionError(**url), ReadTimeoutError(**url), ClientConnectionError()]
    silent += [OSError(errno.ETIMEDOUT, ""), ConnectionResetError(), answer(503, "SlowDown")]
    assert all(is_transient(error) for error in silent)
    wrong = [NoCredentialsError(), PermissionError(), FileNotFoundError(), FileExistsError()]
    wrong += [OSError(errno.ENOSPC, ""), answer(403, "AccessDenied"), answer(412, "Failed")]
    assert not any(is_transient(error) for error in wrong)


def test_the_environment_says_how_long(monkeypatch):
    def found():
        return RetryPolicy.of_environment(hurried=lambda: False, notice=print).seconds

    assert found() == DEFAULT_S
    monkeypatch.setenv(patience.VARIABLE, "7.5")
    assert found() == 7.5
    for wrong in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(patience.VARIABLE, wrong)
        with pytest.raises(ConfigError, match=patience.VARIABLE):
            found()
