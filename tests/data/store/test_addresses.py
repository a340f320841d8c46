"""Which texts name a store, and which names become paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.errors import BadStore
from epochal.data.store import addresses
from epochal.data.store.addresses import (
    check_path,
    is_segment,
    join,
    local_folder,
    normalise_store,
    scheme_of,
)

FOLDER = Path("/config/folder")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("./store", "file:///config/folder/store"),
        ("./a/../b/", "file:///config/folder/b"),
        ("../store", "file:///config/store"),
        (".", "file:///config/folder"),
        ("/data//store/", "file:///data/store"),
        ("//data/store", "file:///data/store"),
        ("./with space", "file:///config/folder/with space"),
        ("file:///data/x/../store", "file:///data/store"),
        ("local:///data", "file:///data"),
        ("memory://x/y/", "memory://x/y"),
        ("memory:///x", "memory://x"),
        ("s3://bucket", "s3://bucket"),
        ("S3://Bucket/Prefix/", "s3://Bucket/Prefix"),
        ("s3a://bucket/prefix", "s3://bucket/prefix"),
        ("hdfs:///data", "hdfs:///data"),
        ("sftp://me@host/data", "sftp://me@host/data"),
    ],
)
def test_a_store_has_one_address(text, address, monkeypatch):
    monkeypatch.setattr(addresses, "find_spec", lambda package: package)
    assert normalise_store(text, folder=FOLDER) == address
    assert normalise_store(address, folder=Path("/elsewhere")) == address


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (" ./store", "spaces around"),
        ("./a\nb", "spaces around"),
        ("runs/x", r"did you mean \./runs/x"),
        ("store", r"did you mean \./store"),
        ("~/store", "write the absolute path"),
        ("/", "root folder"),
        ("/..", "root folder"),
        ("s3:/bucket", "did you mean s3://bucket"),
        ("s3:bucket", "did you mean s3://bucket"),
        ("file:/data", "did you mean file:///data"),
        ("file://data", "wants an absolute path"),
        ("s4://bucket", "unknown scheme 's4'; .*s3"),
        ("hfds://data", "did you mean hdfs://"),
        ("http://host/x", "no place to write"),
        ("simplecache://x", "no place to write"),
        ("simplecache::s3://bucket", "chains"),
        ("s3://", "names no place"),
        ("s3:///bucket", "names no place"),
        ("s3://bucket//x", "empty segment"),
        ("s3://bucket/../x", "have no place"),
        ("s3://bucket/x?versionId=1", "have no place"),
    ],
)
def test_other_texts_are_refused_with_what_to_write(text, told):
    with pytest.raises(BadStore, match=told):
        normalise_store(text, folder=FOLDER)


def test_a_scheme_whose_package_is_missing_names_what_to_install(monkeypatch):
    monkeypatch.setattr(addresses, "find_spec", lambda _: None)
    with pytest.raises(BadStore, match=r"pip install 'epochal\[s3\]'"):
        normalise_store("s3://bucket", folder=FOLDER)
    with pytest.raises(BadStore, match="pip install gcsfs"):
        normalise_store("gs://bucket", folder=FOLDER)


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(BadStore, match="password") as caught:
        normalise_store("sftp://me:geheim@host/x", folder=FOLDER)
    assert "geheim" not in str(caught.value)


def test_an_s3_address_is_checked_without_loading_its_package():
    code = (
        "import sys; from pathlib import Path;"
        "from epochal.data.store.addresses import normalise_store;"
        "normalise_store('s3://bucket', folder=Path('/')); sys.exit('s3fs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.lists(st.sampled_from(["..", ".", "a", "b.c", ""]), max_size=8))
def test_file_addresses_are_absolute_and_normal(segments):
    text = "/".join(["./a", *segments])
    if os.path.normpath(FOLDER / text) == "/":
        with pytest.raises(BadStore, match="root folder"):
            normalise_store(text, folder=FOLDER)
        return
    address = normalise_store(text, folder=FOLDER)
    path = local_folder(address)
    assert scheme_of(address) == "file"
    assert str(path) == os.path.normpath(path)
    assert path.is_absolute()


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = normalise_store(text, folder=FOLDER)
    except BadStore:
        return
    assert "://" in address
    assert ".." not in address.split("/")


@given(st.text(alphabet="ab./_-\\ \x00é~:", max_size=12))
def test_a_checked_path_stays_below_the_store(path):
    try:
        checked = check_path(path)
    except BadStore:
        return
    assert checked == path
    assert os.path.normpath(f"/store/{path}") == f"/store/{path}"
    assert join("s3://b", path) == f"s3://b/{path}"
    assert all(is_segment(segment) for segment in path.split("/"))


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a\n", "a" * 901])
def test_paths_that_are_not_plain_are_refused(path):
    with pytest.raises(BadStore, match="cannot name an object"):
        check_path(path)


@pytest.mark.parametrize("text", ["./" + "x" * 256, "./" + "ä" * 128, "/" + "a/" * 1600 + "b"])
def test_a_folder_that_no_file_system_holds_is_refused_in_a_short_line(text, tmp_path):
    with pytest.raises(
        BadStore, match="a path has at most 3000 characters, and 255 bytes"
    ) as caught:
        normalise_store(text, folder=tmp_path)
    assert len(str(caught.value)) < 300
