"""Text: which tokens each window has, parts that share none, tokens that are kept."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epochal.data import datasets
from epochal.data.datasets.text import text
from epochal.data.errors import DataError


class Letters:
    """A tokenizer: the place of a letter in the alphabet."""

    calls = 0

    def __init__(self, shift=0):
        self.shift = shift

    def encode(self, piece):
        Letters.calls += 1
        return [ord(one) + self.shift for one in piece]

    def fingerprint(self):
        return f"letters {self.shift}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "b").mkdir(parents=True)
    (tmp_path / "data" / "a.txt").write_text("abcdefghij")
    (tmp_path / "data" / "b" / "c.txt").write_text("KLMNOPQ")
    (tmp_path / "data" / "b" / "d.txt").write_text("")
    (tmp_path / "data" / "b" / "e.md").write_text("rst")
    return tmp_path / "data"


def told(one):
    return [bytes(part.tolist()).decode() for part in one]


def refused(*given, **named):
    with pytest.raises(DataError) as caught:
        text(*given, **named)
    return str(caught.value)


def test_windows_are_bytes_and_the_target_is_one_ahead(folder):
    windows = text(str(folder), 4)
    assert [told(windows[place]) for place in range(len(windows))] == [
        ["abcd", "bcde"],
        ["efgh", "fghi"],
        ["KLMN", "LMNO"],
    ]
    assert windows[0][0].dtype == torch.int64
    assert [windows.path_of(place) for place in (1, 2)] == [
        "a.txt from byte 4",
        "b/c.txt from byte 0",
    ]
    assert windows.lengths.tolist() == [4, 4, 4]
    for one, again in zip(windows.__getitems__([2, 0]), (windows[2], windows[0]), strict=True):
        assert all(map(torch.equal, one, again))
    joined = text(str(folder), 4, join=True)
    assert [told(joined[place])[0] for place in range(len(joined))] == [
        "abcd",
        "efgh",
        "ijKL",
        "MNOP",
    ]
    assert joined.path_of(3) == "b/c.txt from byte 2"
    assert datasets.text is text


def test_without_a_window_each_document_is_an_item(folder):
    documents = text(str(folder), None)
    assert documents.lengths.tolist() == [9, 6, 2]
    assert told(documents[2]) == ["rs", "st"]


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    window=st.integers(1, 12),
    stride=st.integers(1, 15),
    join=st.booleans(),
    seed=st.integers(0, 9),
)
def test_every_window_is_a_slice_of_its_text(lengths, window, stride, join, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    tokens = np.arange(sum(lengths), dtype=np.uint16)
    documents = np.split(tokens, np.cumsum(lengths)[:-1])
    for number, document in enumerate(documents):
        document.tofile(folder / f"{number}.bin")
    whole = [tokens] if join else documents
    expected = [
        (one[start : start + window].tolist(), one[start + 1 : start + window + 1].tolist())
        for one in whole
        for start in range(0, len(one) - window, stride)
    ]
    if not expected:
        assert "join: true" in refused(str(folder), window, stride, join=join)
        return
    windows = text(str(folder), window, stride, join=join)
    found = windows.__getitems__(range(len(windows)))
    assert [(one.tolist(), other.tolist()) for one, other in found] == expected
    parts = []
    for part in ("train", "validation"):
        split = {"part": part, "seed": seed, "fraction": 0.3}
        try:
            mine = text(str(folder), window, stride, split=split, join=join)
        except DataError:
            parts.append(set())
            continue
        rows = [
            (one.tolist(), other.tolist()) for one, other in mine.__getitems__(range(len(mine)))
        ]
        assert all(one in expected for one in rows)
        parts.append({token for _, targets in rows for token in targets})
        if stride >= window:
            assert len(rows) == len(mine)
    assert not parts[0] & parts[1]


def test_parts_may_be_of_documents_or_folders(folder):
    by = {"column": "folder", "values": ["b"]}
    train = text(str(folder), 4, split={"part": "train", **by})
    held = text(str(folder), 4, split={"part": "validation", **by})
    assert [train.path_of(0), held.path_of(0)] == ["a.txt from byte 0", "b/c.txt from byte 0"]
    by = {"column": "file", "values": ["a.txt"]}
    assert len(text(str(folder), 4, split={"part": "validation", **by}, join=True)) == 2
    assert "expected file or folder" in refused(
        str(folder), 4, split={"part": "train", "column": "fold", "values": [1]}
    )


def test_token_files_are_read_as_they_are(tmp_path):
    tokens = np.arange(40, dtype=np.uint16) + 60_000
    tokens.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "train.npy", tokens.astype(np.uint32) * 65_537)
    small = text(str(tmp_path / "train.bin"), 8)
    assert small[1][0].tolist() == list(range(60_008, 60_016))
    large = text(str(tmp_path / "train.npy"), 8)
    assert large[1][1].tolist() == [(60_009 + one) * 65_537 for one in range(8)]
    assert large.path_of(1) == "train.npy from token 8"
    assert len(text(str(tmp_path / "train.bin"), 8, dtype="uint32")) == 2


def test_a_tokenizer_works_once_and_its_tokens_are_kept(folder, cache):
    Letters.calls = 0
    first = text(str(folder), 4, tokenizer=Letters())
    assert Letters.calls == 3
    assert [told(first[place])[0] for place in range(len(first))] == ["abcd", "efgh", "KLMN"]
    again = text(str(folder), 4, tokenizer=Letters())
    assert Letters.calls == 3
    assert again.fingerprint() == first.fingerprint()
    assert np.load(next(cache.rglob("tokens.npy"))).dtype == np.uint16
    other = text(str(folder), 4, tokenizer=Letters(70_000))
    assert Letters.calls == 6
    assert other[0][0][0] == ord("a") + 70_000
    assert other.fingerprint() != first.fingerprint()
    ended = text(str(folder), 4, tokenizer=Letters(), end=0, join=True)
    assert told(ended[2])[0] == "ij\0K"
    (folder / "a.txt").write_text("abcdefghiJ")
    assert text(str(folder), 4, tokenizer=Letters()).fingerprint() != first.fingerprint()
    assert Letters.calls == 12
    assert not [one for one in (cache / "tokens").iterdir() if one.name.startswith(".")]


def test_a_long_text_is_encoded_in_pieces_of_whole_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[text.__module__], "PIECE_CHARS", 10)
    lines = "".join(f"line {number} ä\r\n" for number in range(50))
    (tmp_path / "a.txt").write_bytes(lines.encode())
    windows = text(str(tmp_path / "a.txt"), None, tokenizer=Letters())
    assert "".join(map(chr, windows[0][0].tolist())) == lines[:-1]


def test_the_fingerprint_is_of_content_and_settings_alone(folder, tmp_path):
    (tmp_path / "copy" / "b").mkdir(parents=True)
    for name in ("a.txt", "b/c.txt", "b/d.txt", "b/e.md"):
        (tmp_path / "copy" / name).write_bytes((folder / name).read_bytes())
    one, other = text(str(folder), 4), text(str(tmp_path / "copy"), 4)
    assert one.fingerprint() == other.fingerprint()
    assert one.fingerprint() != text(str(folder), 5).fingerprint()
    assert one.fingerprint() != text(str(folder), 4, 3).fingerprint()
    (tmp_path / "copy" / "a.txt").write_text("abcdefghiJ")
    assert text(str(tmp_path / "copy"), 4).fingerprint() != one.fingerprint()


class Nameless:
    def encode(self, piece):
        return [1]


class Broken(Letters):
    def encode(self, piece):
        if "K" in piece:
            raise KeyError(piece)
        return [-1]


def test_what_is_wrong_is_named(folder, tmp_path):
    path = str(folder)
    assert "nothing is found" in refused(str(folder / "absent"), 4)
    assert "from 1 on" in refused(path, 0)
    assert "leave it out" in refused(path, None, 3)
    assert "has 10" in refused(path, 10)
    assert "fingerprint()" in refused(path, 4, tokenizer=Nameless())
    assert "whole numbers from 0" in refused(path, 4, tokenizer=Broken())
    assert "b/c.txt raised" in refused(str(folder / "b/c*"), 4, tokenizer=Broken()).replace(
        "encoding c.txt", "encoding b/c.txt"
    )
    assert "a `tokenizer`" in refused(path, 4, end=3)
    (folder / "t.bin").write_bytes(b"123")
    assert "t.bin holds tokens and a.txt is a text" in refused(path, 4)
    assert "no multiple" in refused(str(folder / "t.bin"), 1)
    assert "leave out `tokenizer`" in refused(str(folder / "t.bin"), 1, tokenizer=Letters())
    assert "uint16" in refused(str(folder / "t.bin"), 1, dtype="float32")
    (folder / "latin.txt").write_bytes(b"\xff\xfe" * 9)
    assert "latin.txt is no text in UTF-8" in refused(
        str(folder / "latin.txt"), 4, tokenizer=Letters()
    )
    np.save(folder / "two.npy", np.zeros((2, 2), dtype=np.uint8))
    assert "one dimension" in refused(str(folder / "two.npy"), 1)
    (folder / "packed.txt.gz").write_bytes(b"")
    assert "is packed" in refused(str(folder / "packed.txt.gz"), 1)


def test_a_tokenizer_of_the_package_tokenizers_is_named_by_its_file(folder, cache):
    class OfThePackage:
        """As `tokenizers.Tokenizer`: special tokens unless told otherwise, and `.ids`."""

        def to_str(self):
            return json.dumps({"model": "letters"})

        def encode(self, piece, add_special_tokens=True):
            found = [ord(one) for one in piece]

            class Encoding:
                ids = [0, *found] if add_special_tokens else found

            return Encoding()

    assert told(text(str(folder), 4, tokenizer=OfThePackage())[0]) == ["abcd", "bcde"]
