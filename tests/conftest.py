"""Fixtures that several test files share: an S3 endpoint and a fresh store on each backend."""

import uuid

import pytest
from s3_server import BUCKET, s3_server


@pytest.fixture(scope="session")
def s3_endpoint():
    """The URL of a local S3 server; credentials and endpoint are in the environment."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(params=["file", "memory", "s3"])
def store_url(request, tmp_path):
    """The address of an empty store that no other test uses."""
    if request.param == "file":
        return f"file://{tmp_path}/store"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/store"
    request.getfixturevalue("s3_endpoint")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"
