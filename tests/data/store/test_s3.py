"""A store on S3 whose answers are lost, late, doubled or refusals: what is there decides."""

import os
import random
import uuid
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.stores.faulty_s3 import Fault, faulty_s3
from support.stores.s3_server import BUCKET

from epochal.data.errors import PreflightFailed, StoreUnavailable
from epochal.data.store import retry, s3
from epochal.data.store.open import open_store
from epochal.data.store.retry import RetryPolicy

MB = 1 << 20
LARGE = 11 * MB  # two whole parts and a rest, at S3's smallest size of parts
SMALL = 100_000


@pytest.fixture(autouse=True)
def slept(monkeypatch):
    """Pauses take no time, and the clock of the patience runs by them."""
    pauses = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: sum(pauses))
    monkeypatch.setattr(retry, "time", clock)
    return pauses


@pytest.fixture(autouse=True)
def smallest_parts(monkeypatch):
    monkeypatch.setattr(s3, "PART_BYTES", 5 * MB)


@pytest.fixture(params=["moto", pytest.param("on disk", marks=pytest.mark.slow)])
def endpoint(request, monkeypatch):
    """That of moto's server, and of the package's own."""
    if request.param == "moto":
        return request.getfixturevalue("s3_endpoint")
    server = request.getfixturevalue("s3_on_disk")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.url


@pytest.fixture
def place(endpoint):
    """A store past the proxy."""
    place = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    assert place.listing() == {}  # from now on it is connected to that endpoint
    return place


@pytest.fixture
def proxy(endpoint, place):
    with faulty_s3(endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy, place):
    """The same store behind the proxy."""
    return open_store(place.url)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Bytes to put, as a file and as bytes, by their size."""
    folder = tmp_path_factory.mktemp("sources")
    small, large = os.urandom(SMALL), folder / "large"
    large.write_bytes(os.urandom(LARGE))
    return {"small": small, "large": large}


def bytes_of(source):
    return source.read_bytes() if isinstance(source, Path) else source


def uploads(store):
    return store._backend.unfinished_uploads(quiet_s=-60)


SMALL_FAULTS = {
    "its answer is lost": [Fault("put", "lost")],
    "two answers are lost": [Fault("put", "lost", count=2)],
    "it comes twice": [Fault("put", "twice")],
    "it is done late": [Fault("put", "late")],
    "its answer is lost and nobody may look": [Fault("put", "lost"), Fault("head", "503 Slow")],
    "too many requests": [Fault("put", "503 SlowDown", count=2)],
    "an internal error": [Fault("put", "500 InternalError", count=2)],
    "its bytes are changed on the way": [Fault("put", "400 BadDigest")],
    "a conflict": [Fault("put", "409 ConditionalRequestConflict", count=3)],
    "an answer lost after an error": [Fault("put", "500 InternalError"), Fault("put", "lost")],
}
LARGE_FAULTS = {
    "the completion's answer is lost": [Fault("complete", "lost")],
    "three of them are lost": [Fault("complete", "lost", count=3)],
    "the completion comes twice": [Fault("complete", "twice")],
    "the completion is done late": [Fault("complete", "late")],
    "a completion is lost and nobody may look": [
        Fault("complete", "lost"),
        Fault("head", "503 SlowDown", count=2),
    ],
    "the completion's answer is cut": [Fault("complete", "cut")],
    "the completion fails behind a status of 200": [Fault("complete", "200 InternalError")],
    "the upload is unknown": [Fault("complete", "404 NoSuchUpload")],
    "a part finds the upload ended": [Fault("part", "404 NoSuchUpload", after=1)],
    "a conflict at the completion": [Fault("complete", "409 ConditionalRequestConflict")],
    "busy at each kind": [
        Fault(kind, "503 SlowDown", count=2) for kind in ("create", "part", "complete", "head")
    ],
    "errors at each kind": [
        Fault(kind, "500 InternalError", count=2) for kind in ("create", "part", "complete")
    ],
    "an answer of each kind is lost": [
        Fault(kind, "lost") for kind in ("create", "part", "complete")
    ],
}


@pytest.mark.parametrize("case", SMALL_FAULTS)
def test_a_small_object_is_put_although(case, store, proxy, place, sources):
    proxy.faults = [Fault(**vars(fault)) for fault in SMALL_FAULTS[case]]
    store.put_new("a", sources["small"])
    assert not any(fault.count for fault in proxy.faults)
    assert place.read("a") == sources["small"]


@pytest.mark.parametrize("case", LARGE_FAULTS)
def test_a_large_object_is_put_although(case, store, proxy, place, sources):
    proxy.faults = [Fault(**vars(fault)) for fault in LARGE_FAULTS[case]]
    store.put_new("a", sources["large"])
    assert not any(fault.count for fault in proxy.faults if fault.kind != "head")
    assert place.read("a") == bytes_of(sources["large"])


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("how", [None, "lost", "twice", "late", "503 SlowDown", "404 NoSuchUpload"])
def test_what_somebody_else_has_put_is_not_taken_for_ones_own(
    size, how, store, proxy, place, sources
):
    place.put_new("a", sources[size])  # the very same bytes
    last = {"small": "put", "large": "complete"}[size]
    proxy.faults = [] if how is None else [Fault(last, how)]
    with pytest.raises(FileExistsError):
        store.put_new("a", sources[size])
    assert uploads(place) == []
    assert proxy.seen.count("create") <= 1


@pytest.mark.parametrize("size", ["small", "large"])
def test_an_object_that_was_deleted_before_it_could_be_looked_at_is_one_of_somebody_else(
    size, store, proxy, place, sources
):
    place.put_new("a", b"another's")
    proxy.faults = [Fault("head", "404 NoSuchKey")]
    with pytest.raises(FileExistsError):
        store.put_new("a", sources[size])


def test_somebody_else_who_was_faster_while_an_answer_was_awaited_has_won(
    store, proxy, place, sources
):
    proxy.faults = [Fault("complete", "500 InternalError")]
    complete = store._backend._files.call_s3

    def overtaken(method, **arguments):
        if method == "complete_multipart_upload" and place.size("a") is None:
            place.put_new("a", b"another's")
        return complete(method, **arguments)

    store._backend._files.call_s3 = overtaken
    with pytest.raises(FileExistsError):
        store.put_new("a", sources["large"])
    assert place.read("a") == b"another's"


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_write_that_seemed_to_fail_is_its_own_at_the_next_try(size, store, proxy, place, sources):
    last = {"small": "put", "large": "complete"}[size]
    proxy.faults = [Fault(last, "lost"), Fault("any", "503 SlowDown", count=8, after=99)]
    store.retry_with(RetryPolicy(60.0))
    proxy.faults[1].after = {"small": 0, "large": 4}[size]  # then nobody may look for a while
    store.put_new("a", sources[size])
    assert place.read("a") == bytes_of(sources[size])
    with pytest.raises(FileExistsError):
        store.put_new("a", sources[size])


def test_other_bytes_are_not_taken_for_a_write_that_seemed_to_fail(store, proxy, place):
    proxy.faults = [Fault("put", "lost"), Fault("any", "503 SlowDown", count=99)]
    with pytest.raises(StoreUnavailable):
        store.put_new("a", b"first")
    proxy.faults = []
    with pytest.raises(FileExistsError):
        store.put_new("a", b"other")
    store.put_new("a", b"first")
    assert place.read("a") == b"first"


def test_parts_of_the_usual_size_make_one_object(store, proxy, place, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "PART_BYTES", 16 * MB)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(33 * MB))
    proxy.faults = [Fault("complete", "lost", count=2), Fault("part", "500 InternalError")]
    store.put_new("file", source)
    store.put_new("bytes", source.read_bytes())
    assert proxy.seen.count("create") == 2
    assert place.read("file") == place.read("bytes") == source.read_bytes()


def test_an_upload_that_fails_leaves_no_parts_behind(store, proxy, place, sources):
    proxy.faults = [Fault("part", "403 AccessDenied", after=1)]
    with pytest.raises(StoreUnavailable, match="AccessDenied"):
        store.put_new("a", sources["large"])
    assert place.listing() == {}
    assert uploads(place) == []


def test_an_upload_that_is_ended_again_and_again_is_an_error(store, proxy, sources):
    proxy.faults = [Fault("part", "404 NoSuchUpload", count=99)]
    with pytest.raises(StoreUnavailable, match="NoSuchUpload") as raised:
        store.put_new("a", sources["large"])
    assert "create the bucket" not in str(raised.value)


def test_the_error_is_that_of_the_request_and_not_of_the_cleaning_up(store, proxy, sources):
    proxy.faults = [Fault("part", "400 EntityTooLarge"), Fault("abort", "404 NoSuchUpload")]
    with pytest.raises(StoreUnavailable, match="EntityTooLarge"):
        store.put_new("a", sources["large"])


def test_only_a_missing_bucket_is_called_one(proxy, store):
    with pytest.raises(PreflightFailed, match=r"no-such-bucket.*create the bucket"):
        open_store("s3://no-such-bucket/x").preflight()
    proxy.faults = [Fault("put", "404 NoSuchUpload")]
    with pytest.raises(StoreUnavailable) as raised:
        store.put_new("a", b"1")
    assert "create the bucket" not in str(raised.value)


@pytest.mark.parametrize(
    ("ahead_s", "text"), [(3600, "60 minutes ahead"), (-7200, "120 minutes b")]
)
def test_a_wrong_clock_is_named_with_its_skew(ahead_s, text, store, proxy, slept):
    import time

    date = {"Date": formatdate(time.time() - ahead_s, usegmt=True)}
    refusal = "403 RequestTimeTooSkewed"
    proxy.faults = [Fault("any", refusal, count=9, headers=date)]
    for request in (lambda: store.put_new("a", b"1"), lambda: store.size("a"), store.listing):
        with pytest.raises(StoreUnavailable, match=text) as raised:
            request()
        assert "permissions" not in str(raised.value)
    assert slept == []


def test_a_wrong_clock_is_named_where_the_answer_has_no_date(store, proxy):
    proxy.faults = [Fault("put", "403 RequestTimeTooSkewed")]
    with pytest.raises(StoreUnavailable, match="clock of this machine is wrong"):
        store.put_new("a", b"1")


READS = {
    "read": lambda store: store.read("a"),
    "size": lambda store: store.size("a"),
    "listing": lambda store: store.listing(),
    "delete": lambda store: store.delete("a"),
    "set_aside": lambda store: store.set_aside("a", "a test"),
}


@pytest.mark.parametrize("how", ["503 SlowDown", "500 InternalError", "lost"])
@pytest.mark.parametrize("operation", READS)
def test_two_failures_of_any_operation_are_waited_out(operation, how, store, proxy, place):
    place.put_new("a", b"123")
    proxy.faults = [Fault("any", how, count=2)]
    READS[operation](store)
    assert not proxy.faults[0].count
    assert place.size("a") == (None if operation in {"delete", "set_aside"} else 3)


def test_pauses_differ_and_leave_all_generators_of_a_training_alone(
    store, proxy, place, sources, slept
):
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    proxy.faults = [Fault("any", "503 SlowDown", count=2), Fault("complete", "lost", count=2)]
    store.put_new("large", sources["large"])
    store.map(lambda number: store.put_new(f"many/{number}", b"1"), range(40))
    assert len(store.listing("many")) == 40
    assert len({round(pause, 6) for pause in slept}) == len(slept) >= 2
    for number, pause in enumerate(slept[:2]):
        assert 0.125 * 2**number <= pause <= 0.25 * 2**number
    assert random.getstate() == state[0]
    arrays = zip(np.random.get_state(), state[1], strict=True)
    assert all(np.array_equal(now, then) for now, then in arrays)
    assert torch.equal(torch.get_rng_state(), state[2])


def begin_upload(store, path, *, parts=1):
    """An upload whose process was killed before it was complete."""
    call, bucket = store._backend._files.call_s3, store._backend._bucket
    key = {"Key": f"{store._backend._prefix}{path}"}
    upload = call("create_multipart_upload", Bucket=bucket, **key)["UploadId"]
    for number in range(parts):
        body = bytes(5 * MB)
        call("upload_part", Bucket=bucket, UploadId=upload, PartNumber=number + 1, Body=body, **key)
    return upload


def test_unfinished_uploads_are_those_below_the_store_alone(place):
    begin_upload(open_store(f"{place.url}x"), "stages/a")  # a prefix is no folder
    begin_upload(open_store(f"s3://{BUCKET}"), f"{uuid.uuid4().hex}/stages/a")
    ids = {begin_upload(place, "stages/a", parts=2), begin_upload(place, "stages/a")}
    begin_upload(place, "not an object")
    place.put_new("stages/b", b"1")
    found = place.unfinished_uploads(quiet_s=-60)
    assert {upload.id for upload in found} == ids
    assert sorted(upload.bytes for upload in found) == [5 * MB, 10 * MB]
    assert {upload.path for upload in found} == {"stages/a"}


def test_an_upload_of_which_parts_have_come_lately_is_running(place, monkeypatch):
    begin_upload(place, "stages/a")
    now = s3._time_of
    monkeypatch.setattr(s3, "_time_of", lambda page: now(page) + timedelta(hours=1))
    assert place.unfinished_uploads(quiet_s=7200) == []
    assert len(place.unfinished_uploads(quiet_s=1800)) == 1
    call = place._backend._files.call_s3

    def begun_long_ago(method, **arguments):
        answer = call(method, **arguments)
        for upload in answer.get("Uploads", []):
            upload["Initiated"] -= timedelta(days=3)
        return answer

    place._backend._files.call_s3 = begun_long_ago
    assert place.unfinished_uploads(quiet_s=7200) == []


def test_a_listing_of_many_uploads_is_complete(place, monkeypatch):
    ids = {begin_upload(place, f"stages/{number}", parts=0) for number in range(5)}
    call = place._backend._files.call_s3
    monkeypatch.setattr(
        place._backend._files,
        "call_s3",
        lambda method, **arguments: call(
            method, **arguments, **({"MaxUploads": 2} if method == "list_multipart_uploads" else {})
        ),
    )
    assert {upload.id for upload in place.unfinished_uploads(quiet_s=-60)} == ids


def test_an_upload_that_is_aborted_is_gone_and_one_that_has_ended_is_no_error(place):
    begin_upload(place, "stages/a")
    (upload,) = place.unfinished_uploads(quiet_s=-60)
    place.abort_upload(upload)
    place.abort_upload(upload)
    assert place.unfinished_uploads(quiet_s=-60) == []
