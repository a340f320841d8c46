"""Files written and hashed in one pass, and tensors as exactly the bytes of a safetensors file."""

import errno
import fcntl
import hashlib
import os
import resource
import tempfile
from pathlib import Path

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from epochal.data.errors import StateMismatch
from epochal.data.hashing import file_checksum
from epochal.data.store import hashed_files as written_file
from epochal.data.store.hashed_files import WrittenFile, write_checksummed, write_hashed
from epochal.engine.checkpoint.safetensors_file import _DTYPES, safetensors_pieces

SIZES = [0, 1, written_file.SMALL_BYTES - 1, written_file.SMALL_BYTES, 3 * written_file.BLOCK_BYTES]


def joined(tensors):
    return b"".join(safetensors_pieces(tensors))


@pytest.mark.parametrize("sizes", [[], [0], SIZES, SIZES[::-1], [7] * 5000, [65000] * 300])
def test_a_file_has_the_bytes_of_its_pieces_and_their_digest(sizes, tmp_path):
    pieces = [os.urandom(size) for size in sizes]
    written = write_hashed(tmp_path / "x", iter(pieces))
    data = b"".join(pieces)
    assert written.path.read_bytes() == data
    assert (written.sha256, written.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert WrittenFile.of(written.path) == written


@pytest.mark.parametrize("sizes", [[], SIZES, [7] * 5000])
def test_a_checksum_is_that_of_the_bytes_however_they_come(sizes, tmp_path):
    pieces = [os.urandom(size) for size in sizes]
    written = write_checksummed(tmp_path / "x", iter(pieces))
    data = b"".join(pieces)
    assert written.path.read_bytes() == data
    assert (written.checksum, written.size) == (xxhash.xxh3_128_hexdigest(data), len(data))
    assert file_checksum(written.path) == written.checksum


def is_direct(descriptor):
    return fcntl.fcntl(descriptor, fcntl.F_GETFL) & written_file._O_DIRECT != 0


@pytest.fixture
def writes(monkeypatch, tmp_path):
    """Of each write: its bytes and whether it went past the page cache, where there is such."""
    found, write = [], os.write
    with (tmp_path / "asked").open("wb") as stream:
        known = written_file._go_past_the_cache(stream.fileno(), wanted=True)
    if not known:  # such as tmpfs before Linux 6.6, or macOS: there all tests take the other way
        pytest.skip("this file system or system has no writes past the page cache")

    def noted(descriptor, block):
        found.append((len(block), is_direct(descriptor)))
        return write(descriptor, block)

    monkeypatch.setattr(written_file.os, "write", noted)
    return found


BLOCK = written_file.BLOCK_BYTES


def test_whole_blocks_go_past_the_page_cache_and_the_end_through_it(tmp_path, writes):
    data = os.urandom(2 * BLOCK + 7)
    written = write_checksummed(tmp_path / "x", [data[:100], data[100:]])
    assert written.path.read_bytes() == data
    assert writes == [(BLOCK, True), (BLOCK, True), (7, False)]


def test_who_reads_the_file_again_has_it_in_the_page_cache(tmp_path, writes):
    write_checksummed(tmp_path / "x", [os.urandom(BLOCK + 7)], cached=True)
    assert [direct for _, direct in writes] == [False, False]


def test_a_file_system_that_knows_no_such_writes_gets_the_same_bytes(tmp_path, writes, monkeypatch):
    data = os.urandom(BLOCK + 7)
    with_it = write_checksummed(tmp_path / "with", [data])
    control = fcntl.fcntl

    def refuse(descriptor, command, *flags):
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "no such flag here")
        return control(descriptor, command, *flags)

    monkeypatch.setattr(written_file.fcntl, "fcntl", refuse)
    without = write_checksummed(tmp_path / "without", [data])
    assert without.path.read_bytes() == data
    assert without.checksum == with_it.checksum
    assert [direct for _, direct in writes[2:]] == [False, False]


def test_a_file_system_that_refuses_the_write_itself_gets_the_same_bytes(
    tmp_path, writes, monkeypatch
):
    data, write, refused = os.urandom(2 * BLOCK + 7), os.write, []

    def refuse(descriptor, block):
        if is_direct(descriptor):
            refused.append(len(block))
            raise OSError(errno.EINVAL, "not so")
        return write(descriptor, block)

    monkeypatch.setattr(written_file.os, "write", refuse)
    assert write_checksummed(tmp_path / "x", [data]).path.read_bytes() == data
    assert refused == [BLOCK]
    assert writes[0] == (BLOCK, False)


@pytest.mark.parametrize("most", [4096, 4096 * 3 + 512, 100_001])
def test_short_writes_lose_nothing(most, tmp_path, writes, monkeypatch):
    data, write = os.urandom(BLOCK + 7), os.write
    monkeypatch.setattr(written_file.os, "write", lambda to, block: write(to, block[:most]))
    assert write_checksummed(tmp_path / "x", [data]).path.read_bytes() == data
    assert len(writes) > BLOCK // most


def test_a_write_of_nothing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(written_file.os, "write", lambda *_: 0)
    with pytest.raises(OSError, match="Input/output error"):
        write_checksummed(tmp_path / "x", [b"data"])


def test_much_is_sent_to_the_disk_early(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(written_file.os, "fsync", synced.append)
    piece = bytes(written_file.SYNC_BYTES)
    write_hashed(tmp_path / "small", [piece[:-1]])
    assert synced == []
    write_hashed(tmp_path / "large", [piece, piece])
    assert synced


def test_an_error_of_the_early_sync_is_not_lost(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(written_file.os, "fsync", fail)
    with pytest.raises(OSError) as raised:
        write_hashed(tmp_path / "x", [bytes(2 * written_file.SYNC_BYTES)])
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path / "x"))


@pytest.mark.parametrize("function", [write_hashed, write_checksummed])
def test_an_error_of_the_disk_names_the_file(function, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError) as raised:
            function(tmp_path / "x", [bytes(30 << 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(tmp_path / "x"))


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(FileExistsError):
        write_hashed(tmp_path / "x", [b"after"])
    assert (tmp_path / "x").read_bytes() == b"before"


def test_an_error_of_who_gives_the_pieces_comes_through(tmp_path):
    def pieces():
        yield bytes(1 << 20)
        raise KeyError("nothing more")

    with pytest.raises(KeyError, match="nothing more"):
        write_hashed(tmp_path / "x", pieces())


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
        st.tuples(st.sampled_from(list(_DTYPES)), st.lists(st.integers(0, 3), max_size=3)),
        max_size=8,
    )
)
def test_the_bytes_are_those_of_safetensors(layout):
    tensors = {}
    for name, (dtype, shape) in layout.items():
        count = torch.Size(shape).numel() * dtype.itemsize
        values = torch.arange(count) % (2 if dtype == torch.bool else 251)
        tensors[name] = values.to(torch.uint8).view(dtype).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file(tensors, path)
        assert joined(tensors) == path.read_bytes()


def test_every_type_has_its_place_in_the_order_of_the_file():
    tensors = {f"t{index}": torch.zeros(2, dtype=dtype) for index, dtype in enumerate(_DTYPES)}
    backwards = dict(reversed(tensors.items()))
    assert joined(tensors) == joined(backwards) == save(tensors)


def test_views_transposed_and_conjugated_tensors_are_written_as_they_look():
    whole = torch.arange(24.0).reshape(4, 6)
    wave = torch.tensor([1 + 2j, 3 - 4j]).conj()
    shown = {"t": whole.t(), "row": whole[1], "whole": whole, "again": whole, "wave": wave}
    plain = {name: one.clone().contiguous().resolve_conj() for name, one in shown.items()}
    assert joined(shown) == save(plain)
    parameter = torch.nn.Parameter(whole.clone())
    assert joined({"p": parameter}) == save({"p": whole.clone()})


def test_the_pieces_are_the_tensors_own_memory():
    tensor = torch.zeros(100_000)
    _, piece = safetensors_pieces({"x": tensor})
    tensor[0] = 1.0
    assert bytes(piece[:4]) == bytes(torch.ones(1).numpy())


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse()]
)
def test_what_the_format_does_not_have_is_refused_by_name(tensor):
    with pytest.raises(StateMismatch, match="weight is a torch"):
        joined({"weight": tensor})
