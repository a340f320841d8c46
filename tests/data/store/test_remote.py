"""What a store on S3 promises besides."""

import os
import time
import uuid
from pathlib import Path

import pytest
from support.stores.s3_server import BUCKET

from epochal.data.errors import PreflightFailed
from epochal.data.store import s3
from epochal.data.store.open import open_store


@pytest.fixture
def bucket(s3_endpoint):
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_a_listing_of_many_pages_is_complete(bucket, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    bucket.map(lambda number: bucket.put_new(f"many/{number}", b"1"), range(7))
    assert sorted(bucket.listing("many")) == [f"many/{number}" for number in range(7)]


def test_large_files_go_up_in_parts_and_never_replace(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    store = open_store(bucket.url)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(12 << 20))
    store.put_new("big", source)
    assert store.read("big") == source.read_bytes()
    for other in (tmp_path / "other", b"1" * (12 << 20)):
        if isinstance(other, Path):
            other.write_bytes(b"2" * (12 << 20))
        with pytest.raises(FileExistsError):
            store.put_new("big", other)
    assert store.read("big") == source.read_bytes()
    assert store.listing() == {"big": 12 << 20}


def test_a_missing_bucket_fails_the_preflight(s3_endpoint):
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(PreflightFailed, match=r"no-such-bucket.*create the bucket"):
        store.preflight()


def test_missing_credentials_fail_the_preflight(s3_endpoint, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PreflightFailed, match=r"NoCredentialsError.*AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{BUCKET}/x").preflight()


def test_an_endpoint_that_is_away_is_told_within_seconds(s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(PreflightFailed, match=r"EndpointConnectionError.*AWS_ENDPOINT_URL"):
        open_store(f"s3://{BUCKET}/x").preflight()
    assert time.monotonic() - started < 15
