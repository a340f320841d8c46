"""What a store in a local folder promises besides."""

import errno
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from epochal.data.errors import PreflightFailed, StoreUnavailable
from epochal.data.store.local_disk import SystemDisk, use_disk
from epochal.data.store.open import open_store
from epochal.data.testing.disk import FaultyDisk
from epochal.data.testing.plan import FaultPlan


@pytest.fixture
def local(tmp_path):
    return open_store("./store", folder=tmp_path)


def test_a_scratch_file_is_linked_and_not_copied(local, tmp_path):
    with local.scratch() as folder:
        source = folder / "big"
        source.write_bytes(b"1" * 1000)
        inode = source.stat().st_ino
        local.put_new("a/big", source)
        assert not source.exists()
    stored = (tmp_path / "store/a/big").stat()
    assert stored.st_ino == inode
    assert stored.st_nlink == 1


def test_a_fetched_file_is_linked_and_not_copied_and_leaves_nothing(local, tmp_path):
    local.put_new("a/big", b"1" * 1000)
    stored = tmp_path / "store/a/big"
    with local.fetch("a/big") as path:
        assert path != stored
        assert path.samefile(stored)
    assert stored.stat().st_nlink == 1
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_folder_that_no_store_has_written_to_is_read_as_it_is(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/model.safetensors").write_bytes(b"1")
    with open_store("./weights", folder=tmp_path).fetch("model.safetensors") as path:
        assert path == tmp_path / "weights/model.safetensors"
    assert [file.name for file in (tmp_path / "weights").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("error", [errno.EROFS, errno.EPERM, errno.ENOSPC, errno.EMLINK])
def test_a_file_that_can_get_no_second_name_is_read_under_its_own(
    local, tmp_path, monkeypatch, error
):
    local.put_new("a", b"1")

    def refused(source, target):
        raise OSError(error, os.strerror(error), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refused)
    with local.fetch("a") as path:
        assert path == tmp_path / "store/a"
        assert path.read_bytes() == b"1"


def test_an_object_that_goes_while_it_gets_its_second_name_is_absent(local, monkeypatch):
    local.put_new("a", b"1")
    link = os.link

    def too_late(source, target):
        source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", too_late)
    with pytest.raises(FileNotFoundError) as raised, local.fetch("a"):
        pass
    assert raised.value.filename == "a"


@pytest.fixture
def disk():
    """A disk that can lose power: then what was not synced is gone."""
    made = FaultyDisk(FaultPlan("power", level="disk"))
    before = use_disk(made)
    yield made
    use_disk(before)


@pytest.mark.parametrize("as_file", [False, True])
def test_what_was_put_outlives_a_power_cut_and_what_was_deleted_stays_away(local, disk, as_file):
    local.put_new("a/other", b"1")
    local.put_new("a/gone", b"1")
    local.delete("a/gone")
    with local.scratch() as folder:
        (folder / "x").write_bytes(b"12345678")
        local.put_new("a/b/object", folder / "x" if as_file else b"12345678")
    disk.lose_power()
    assert open_store(local.url).listing() == {"a/b/object": 8, "a/other": 1}
    assert open_store(local.url).read("a/b/object") == b"12345678"


@pytest.mark.parametrize("failing", ["link", "fsync"])
def test_an_error_while_writing_leaves_nothing(local, tmp_path, monkeypatch, failing):
    local.put_new("a/before", b"1")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(StoreUnavailable, match=r"a/object.*No space left.*free some space"):
            local.put_new("a/object", b"1")
    assert local.listing() == {"a/before": 1}
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_file_system_without_links_is_told_at_preflight(local, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(PreflightFailed, match="no hard links"):
        local.preflight()


def test_a_file_where_a_folder_should_be_fails_the_preflight(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("./file", "./file/below"):
        with pytest.raises(PreflightFailed, match=r"NotADirectoryError.*name another store"):
            open_store(place, folder=tmp_path).preflight()


def test_a_file_in_the_way_of_a_folder_is_not_taken_for_the_object(local):
    local.put_new("a", b"1")
    with pytest.raises(StoreUnavailable, match="NotADirectoryError"):
        local.put_new("a/b", b"2")


def test_opening_and_looking_creates_nothing(local, tmp_path):
    assert local.listing() == {}
    assert local.size("a") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_swept_and_live_scratch_is_kept(local, tmp_path):
    program = textwrap.dedent("""
        import os, sys, time
        from epochal.data.store.open import open_store
        store = open_store(sys.argv[1])
        os.link = lambda *_: (print("ready", flush=True), time.sleep(600))
        store.put_new("a/object", b"half")
    """)
    command = [sys.executable, "-c", program, local.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer, local.scratch() as mine:
        assert writer.stdout.readline() == b"ready\n"
        left = [p for p in (tmp_path / "store/tmp").iterdir() if not p.name.startswith(mine.name)]
        assert len(left) == 2
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        again = open_store(local.url)
        assert again.listing() == {}
        again.put_new("a/object", b"whole")
        assert mine.exists()
        assert not any(path.exists() for path in left)
    assert again.read("a/object") == b"whole"


def killed_while_it_reads(local):
    """A process that has read the object `a/read` of the store, and was killed meanwhile."""
    program = textwrap.dedent("""
        import sys, time
        from epochal.data.store.open import open_store
        with open_store(sys.argv[1]).fetch("a/read"):
            print("ready", flush=True)
            time.sleep(600)  # it is killed meanwhile
    """)
    command = [sys.executable, "-c", program, local.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == b"ready\n"
        reader.send_signal(signal.SIGKILL)
        reader.wait()


@pytest.mark.parametrize("what", ["delete", "fetch", "scratch"])
def test_what_a_killed_reader_held_is_swept_by_the_next_process(what, local, tmp_path):
    local.put_new("a/read", b"1" * 1000)
    local.put_new("a/other", b"1")
    killed_while_it_reads(local)
    (left,) = (tmp_path / "store/tmp").iterdir()
    assert left.samefile(tmp_path / "store/a/read")
    again = open_store(local.url)
    if what == "delete":  # makes room: not while a dead process's name holds the bytes
        again.delete("a/read")
    else:
        with again.fetch("a/other") if what == "fetch" else again.scratch():
            pass
    assert list((tmp_path / "store/tmp").iterdir()) == []


def test_a_file_store_loads_no_storage_package():
    program = (
        "import sys; from epochal.data.store.open import open_store; "
        "import epochal.data.stage_store.stages; "
        "store = open_store('/nowhere/at/all'); store.listing(); "
        "print({'fsspec', 's3fs', 'botocore', 'torch', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_link_whose_answer_was_lost_is_no_object_of_somebody_else(tmp_path):
    class ForgetfulDisk(SystemDisk):
        """As NFS, where the second try of a link finds what the first one made."""

        def link(self, source, target):
            super().link(source, target)
            super().link(source, target)

    store = open_store(f"file://{tmp_path}/store")
    before = use_disk(ForgetfulDisk())
    try:
        store.put_new("a", b"1")
        with store.scratch() as folder:
            (folder / "b").write_bytes(b"2")
            store.put_new("b", folder / "b")
        with pytest.raises(FileExistsError):
            store.put_new("a", b"1")
    finally:
        use_disk(before)
    assert store.listing() == {"a": 1, "b": 1}
