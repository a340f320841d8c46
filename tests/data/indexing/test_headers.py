"""Members of archives: as tarfile reads them, or refused by name; never the bytes of another."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.data.errors import DataError
from epochal.data.indexing.headers import Members


def archive(members, *, form=tarfile.GNU_FORMAT, **options):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, **options) as tar:
        for name, data, *changes in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for change in changes:
                for key, value in change.items():
                    setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def members(data, *, window=512, size=None):
    return Members(
        lambda start, count: data[start : start + count],
        len(data) if size is None else size,
        name="a.tar",
        window_bytes=window,
    )


def content(data, **options):
    found = members(data, **options)
    return [(one.name, data[one.body : one.body + one.size], one.start) for one in found]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=150
).filter(lambda name: name.strip("."))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([512, 700, 8192]),
)
def test_members_are_those_that_tarfile_wrote(given, form, window):
    data = archive(given, form=form)
    found = content(data, window=window)
    assert [(name, body) for name, body, _ in found] == [
        (name.encode(), body) for name, body in given
    ]
    starts = [start for *_, start in found]
    assert starts == sorted(starts)
    assert starts[:1] in ([], [0])


def test_a_ustar_name_with_a_prefix_is_whole():
    name = "a" * 80 + "/" + "b" * 80
    assert content(archive([(name, b"x")], form=tarfile.USTAR_FORMAT))[0][:2] == (
        name.encode(),
        b"x",
    )


def test_a_global_header_is_a_comment_and_belongs_to_no_member():
    data = archive([("a", b"x")], form=tarfile.PAX_FORMAT, pax_headers={"EPOCHAL.item": "form"})
    found = members(data)
    (one,) = found
    assert found.comments["EPOCHAL.item"] == b"form"
    assert one.start > 0
    assert data[one.start : one.start + 1] == b"a"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"type": tarfile.LNKTYPE, "linkname": "a"}, "a hard link"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a symbolic link"),
        ({"type": tarfile.CHRTYPE}, "a character device"),
        ({"type": tarfile.BLKTYPE}, "a block device"),
        ({"type": tarfile.FIFOTYPE}, "a FIFO"),
        ({"type": b"S"}, "a sparse file"),
        ({"type": b"V"}, "of the unknown kind b'V'"),
        ({"pax_headers": {"GNU.sparse.major": "1"}}, "a sparse file"),
        ({"pax_headers": {"size": "99999"}}, "larger than the archive"),
        ({"pax_headers": {"size": "-1"}}, "has the size b'-1'"),
        ({"pax_headers": {"path": ""}}, "a member's name has 0 bytes"),
        ({"pax_headers": {"path": "x" * 5000}}, "a member's name has 5,000 bytes"),
        ({"pax_headers": {"comment": "x" * (1 << 21)}}, "expected at most 1,048,576"),
    ],
)
def test_what_holds_no_sample_is_refused_by_name(change, text):
    data = archive([("before.txt", b"x"), ("odd.jpg", b"", change)], form=tarfile.PAX_FORMAT)
    found = iter(members(data))
    assert next(found).name == b"before.txt"
    with pytest.raises(DataError, match=text) as caught:
        next(found)
    assert "a.tar: at byte 1,024" in str(caught.value)


def test_a_header_for_all_files_must_not_name_them():
    data = archive([("a", b"x")], form=tarfile.PAX_FORMAT, pax_headers={"path": "b"})
    with pytest.raises(DataError, match="gives all files one name"):
        list(members(data))


def test_a_size_that_the_archive_does_not_hold_is_refused_before_it_is_read():
    info = tarfile.TarInfo("huge.bin")
    info.size = 1 << 60
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    with pytest.raises(DataError, match=r"'huge\.bin' is said to have 1,152,921,504,606,846,976"):
        list(members(data))


def test_folders_are_passed_over():
    data = archive([("d", b"", {"type": tarfile.DIRTYPE}), ("d/a", b"x")])
    assert [name for name, *_ in content(data)] == [b"d/a"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is empty"),
        (b"x" * 100, "ends inside a header"),
        (b"x" * 2048, "no header of a tar"),
        (b"\x1f\x8b\x08" + bytes(1021), r"compressed \(gzip\)"),
        (b"BZh9" + bytes(1020), r"compressed \(bzip2\)"),
        (b"PK\x03\x04" + bytes(1020), r"compressed \(zip\)"),
    ],
)
def test_what_is_no_archive_is_told(data, text):
    with pytest.raises(DataError, match=text):
        list(members(data))


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1500, 2048, 3000])
def test_an_archive_that_was_cut_off_is_told_wherever_that_was(cut):
    data = archive([(f"{number}.bin", bytes(700)) for number in range(3)])
    with pytest.raises(DataError, match="cut off"):
        list(members(data[:cut]))


def test_large_bodies_are_passed_over():
    data = archive([(f"{number}.bin", bytes(100_000)) for number in range(20)])
    read = []

    def counted(start, count):
        read.append(count)
        return data[start : start + count]

    assert len(list(Members(counted, len(data), name="a.tar", window_bytes=1024))) == 20
    assert sum(read) < 30_000
