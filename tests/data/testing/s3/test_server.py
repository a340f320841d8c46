"""The S3 server: what it keeps when it is killed, and what a client sees of each fault."""

import io
import os
import signal
import time
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from support.stores.s3_server import BUCKET

from epochal.data.hashing import file_sha256
from epochal.data.store.open import open_store
from epochal.data.testing.s3 import RequestFault, S3Server

PART = 5 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=[BUCKET]) as server:
        yield server


@pytest.fixture
def server(shared, monkeypatch):
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    yield shared
    shared.start()
    shared.fail()


@pytest.fixture
def client(server):
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    return boto3.client("s3", endpoint_url=server.url, config=config)


@pytest.fixture
def key(request):
    return f"{request.node.name}/ä object & more"


def keys(client):
    return {one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def test_objects_and_unfinished_uploads_outlive_its_process(server, client, key):
    at = {"Bucket": BUCKET, "Key": key}
    client.put_object(Body=b"123", Metadata={"mark": "a"}, **at)
    parts = {"Bucket": BUCKET, "Key": f"{key}/parts"}
    upload = client.create_multipart_upload(**parts)["UploadId"]
    first = os.urandom(PART)
    sent = [client.upload_part(Body=first, PartNumber=1, UploadId=upload, **parts)["ETag"]]
    before = server.pid
    server.kill()
    assert server.pid is None
    with pytest.raises(BotoCoreError):
        client.head_object(**at)
    server.start()
    assert server.pid not in {None, before}
    found = client.get_object(**at)
    assert (found["Body"].read(), found["Metadata"]) == (b"123", {"mark": "a"})
    sent.append(client.upload_part(Body=b"end", PartNumber=2, UploadId=upload, **parts)["ETag"])
    told = [{"PartNumber": number, "ETag": one} for number, one in enumerate(sent, 1)]
    client.complete_multipart_upload(UploadId=upload, MultipartUpload={"Parts": told}, **parts)
    assert client.get_object(**parts)["Body"].read() == first + b"end"
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET)


DONE = {
    "reset": False, "500 InternalError": False, "503 SlowDown": False, "lost": True, "late": True,
    "409 ConditionalRequestConflict": False, "cut": True, "kill": False, "kill_after": True,
}  # fmt: skip
"""How a request fails → whether it was done all the same."""


@pytest.mark.parametrize("how", DONE)
def test_a_request_fails_and_was_done_or_not(how, server, client, key):
    server.fail(RequestFault(how, of="put", seconds=0.0))
    with pytest.raises((BotoCoreError, ClientError)):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    if how.startswith("kill"):
        server.wait(30)
        assert server.pid is None
        assert [one["failed"] for one in server.counts()["faults"]] == [1]
        server.start()
        assert server.counts() == {"requests": {}, "faults": []}
    deadline = time.monotonic() + 20
    while how == "late" and key not in keys(client) and time.monotonic() < deadline:
        pass  # it is done by a thread beside
    assert (key in keys(client)) == DONE[how]
    client.put_object(Bucket=BUCKET, Key=key, Body=b"2")


@pytest.mark.parametrize("step", ["create", "part", "complete", "abort"])
def test_each_step_of_an_upload_in_parts_fails_by_itself(step, server, client, key):
    at = {"Bucket": BUCKET, "Key": key}

    def steps():
        upload = client.create_multipart_upload(**at)["UploadId"]
        part = client.upload_part(Body=b"1", PartNumber=1, UploadId=upload, **at)["ETag"]
        told = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        client.complete_multipart_upload(UploadId=upload, MultipartUpload=told, **at)
        gone = client.create_multipart_upload(**at)["UploadId"]
        client.abort_multipart_upload(UploadId=gone, **at)

    server.fail(RequestFault("500 InternalError", of=step))
    with pytest.raises(ClientError, match="InternalError"):
        steps()
    assert server.counts()["requests"][step] == 1
    steps()
    assert [one["failed"] for one in server.counts()["faults"]] == [1]


def test_the_second_answer_of_a_doubled_write_is_that_it_is_there(server, client, key):
    server.fail(RequestFault("doubled", of="put"))
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"1", IfNoneMatch="*")
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"1"


def test_slow_and_hanging_requests_take_their_time(server, client, key):
    server.fail(
        RequestFault("slow", of="put", seconds=0.3), RequestFault("hang", of="head", seconds=0.3)
    )
    started = time.monotonic()
    client.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    assert time.monotonic() - started > 0.3
    with pytest.raises(BotoCoreError):
        client.head_object(Bucket=BUCKET, Key=key)
    assert time.monotonic() - started > 0.6


def test_a_flipped_read_is_other_bytes_and_the_object_is_as_it_was(server, client, key):
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(100))
    server.fail(RequestFault("flip"))
    read = client.get_object(Bucket=BUCKET, Key=key, Range="bytes=0-")["Body"].read()
    assert sum(byte.bit_count() for byte in read) == 1
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == bytes(100)


def test_where_no_byte_of_an_object_comes_nothing_is_flipped_and_none_is_counted(
    server, client, key
):
    client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    server.fail(RequestFault("flip", of="get", count=99))
    for _ in range(20):
        with pytest.raises(client.exceptions.NoSuchKey):
            client.get_object(Bucket=BUCKET, Key=f"{key}-absent")
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b""
    (told,) = server.counts()["faults"]
    assert (told["counted"], told["failed"]) == (21, 0)


@pytest.mark.parametrize("plan", [b"{}", b"[1]", b'[{"foo": 1}]', b'[{"how": "odd"}]', b"{"])
def test_a_plan_of_another_form_is_refused_and_the_one_before_stays(plan, server):
    server.fail(RequestFault("lost", of="put"))
    request = urllib.request.Request(f"{server.url}/_faults", data=plan, method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    assert [one["how"] for one in server.counts()["faults"]] == ["lost"]
    server.fail()


def test_a_store_reads_past_flips_and_cuts(server, client, tmp_path):
    store = open_store(f"s3://{BUCKET}/flips")
    data, source = os.urandom(3 << 20), tmp_path / "source"
    source.write_bytes(data)
    store.put_new("a", source)
    for how in ("flip", "cut", "reset"):
        server.fail(RequestFault(how, of="get", at=1, count=2))
        expected = file_sha256(source)
        with store.fetch_intact("a", digest=file_sha256, expected=expected) as local:
            assert local.read_bytes() == data
        assert server.counts()["faults"][0]["failed"] == 2, how


def test_a_stopped_server_says_nothing_until_it_goes_on(server, client, key):
    server.stop()
    try:
        with pytest.raises(BotoCoreError):
            boto3.client(
                "s3", endpoint_url=server.url,
                config=Config(retries={"total_max_attempts": 1}, read_timeout=0.3),
            ).put_object(Bucket=BUCKET, Key=key, Body=b"1")  # fmt: skip
    finally:
        server.resume()
    client.put_object(Bucket=BUCKET, Key=key, Body=b"2")


def test_listings_have_pages_and_folders(client, key):
    names = [f"{key}/{number:02}/{inner}" for number in range(5) for inner in range(3)]
    for name in names:
        client.put_object(Bucket=BUCKET, Key=name, Body=b"1")
    pages = client.get_paginator("list_objects_v2")
    asked = {"Bucket": BUCKET, "Prefix": f"{key}/", "PaginationConfig": {"PageSize": 2}}
    found = [one["Key"] for page in pages.paginate(**asked) for one in page.get("Contents", [])]
    assert found == names
    folders = [
        one["Prefix"]
        for page in pages.paginate(Delimiter="/", **asked)
        for one in page.get("CommonPrefixes", [])
    ]
    assert folders == [f"{key}/{number:02}/" for number in range(5)]
    gone = [{"Key": name} for name in names]
    assert len(client.delete_objects(Bucket=BUCKET, Delete={"Objects": gone})["Deleted"]) == 15
    assert not keys(client) & set(names)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_bytes_that_changed_on_the_way_are_refused(algorithm, client, key):
    client.put_object(Bucket=BUCKET, Key=key, Body=b"right", ChecksumAlgorithm=algorithm)
    wrong = {"CRC32": "AAAAAA==", "SHA1": "A" * 27 + "=", "SHA256": "A" * 43 + "="}[algorithm]
    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"wrong", **{f"Checksum{algorithm}": wrong})
    assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"right"


def test_a_body_of_unknown_length_comes_in_chunks(client, key):
    client.upload_fileobj(io.BytesIO(bytes(12 << 20)), BUCKET, key)
    assert client.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == 12 << 20


def test_a_disk_that_may_not_be_written_is_an_internal_error(tmp_path):
    with S3Server(tmp_path / "s3", buckets=[BUCKET]) as server:
        client = boto3.client(
            "s3", endpoint_url=server.url, aws_access_key_id="a", aws_secret_access_key="b",
            region_name="us-east-1", config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip
        client.put_object(Bucket=BUCKET, Key="a", Body=b"1")
        (server.folder / "scratch").rename(server.folder / "away")
        with pytest.raises(ClientError, match="InternalError"):
            client.put_object(Bucket=BUCKET, Key="b", Body=b"1")


def test_it_ends_with_whoever_has_started_it(tmp_path):
    with S3Server(tmp_path / "s3") as server:
        pid = server.pid
        server._process.stdin.close()  # as the end of this process would
        server.wait(30)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
