"""Packed sequences: every token once, windows as a function of the lengths, labels at borders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epochal.data import datasets
from epochal.data.datasets.packed import as_is, best_fit, packed, pieces
from epochal.data.datasets.text import text
from epochal.data.errors import DataError


class Documents:
    """Documents of ever other tokens, as dicts."""

    def __init__(self, lengths, **parts):
        self.lengths = np.array(lengths)
        ends = np.cumsum(self.lengths)
        self.items = [
            {"input_ids": torch.arange(end - length, end)}
            for length, end in zip(lengths, ends, strict=True)
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


class Pairs(Documents):
    def __getitem__(self, row):
        tokens = self.items[row]["input_ids"]
        return tokens, tokens + 1


lengths_and_window = given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12), window=st.integers(1, 20)
)


@settings(max_examples=25, deadline=None)
@lengths_and_window
def test_every_token_is_in_one_window_with_its_place_and_its_label(lengths, window):
    for order in ("best_fit", "as_is"):
        for documents in (Documents(lengths), Pairs(lengths)):
            if not sum(lengths):
                with pytest.raises(DataError, match="empty"):
                    packed(documents, window)
                return
            for labels in ("next", "same"):
                windows = packed(documents, window, order=order, labels=labels, pad=-7)
                items = [windows[place] for place in range(len(windows))]
                seen = torch.cat([one["input_ids"][one["document_ids"] >= 0] for one in items])
                assert sorted(seen.tolist()) == list(range(sum(lengths)))
                for item, length in zip(items, windows.lengths, strict=True):
                    check(item, length, labels, lengths, pairs=type(documents) is Pairs)


def check(item, length, labels, lengths, *, pairs):
    tokens, ids = item["input_ids"].tolist(), item["document_ids"].tolist()
    assert (item["document_ids"] >= 0).sum() == length
    assert all(token == -7 for token, one in zip(tokens, ids, strict=True) if one < 0)
    lasts = set((np.cumsum(lengths) - 1).tolist())
    for place, (token, one) in enumerate(zip(tokens, ids, strict=True)):
        label, start = int(item["labels"][place]), place - int(item["position_ids"][place])
        if one < 0:
            assert label == -100
            continue
        assert ids[start] == one
        assert tokens[start] == token - (place - start)
        assert start == 0 or ids[start - 1] != one
        if labels == "same":
            assert label == (token if place > start else -100)
        elif token in lasts and not pairs:
            assert label == -100
        else:
            assert label == token + 1


@lengths_and_window
def test_no_window_overflows_and_best_fit_leaves_no_two_that_fit_into_one(lengths, window):
    document_P, start_P, length_P = pieces(np.array(lengths), window)
    assert (length_P >= 1).all()
    for document, length in enumerate(lengths):
        mine = document_P == document
        assert length_P[mine].sum() == length
        assert start_P[mine].tolist() == list(range(0, length, window))
    if not len(length_P):
        return
    for pack in (best_fit, as_is):
        window_P = pack(length_P, window)
        filled = np.bincount(window_P, weights=length_P)
        assert (filled <= window).all()
        assert (filled > 0).all()
        assert pack(length_P, window).tolist() == window_P.tolist()
    filled = np.sort(np.bincount(best_fit(length_P, window), weights=length_P))
    assert len(filled) < 2 or filled[0] + filled[1] > window
    assert (np.diff(as_is(length_P, window)) >= 0).all()


def test_best_fit_is_that_of_a_plain_search():
    generator = np.random.default_rng(0)
    length_P = generator.integers(1, 60, 400)
    left, expected = [], np.empty(400, dtype=np.int64)
    for piece in np.argsort(-length_P, kind="stable"):
        fitting = [room for room in left if room >= length_P[piece]]
        if fitting:
            number = left.index(min(fitting))
        else:
            number = len(left)
            left.append(64)
        left[number] -= length_P[piece]
        expected[piece] = number
    found = best_fit(length_P, 64)
    # Of windows with equal room any may be taken.
    rooms = [np.sort(np.bincount(one, weights=length_P)) for one in (found, expected)]
    assert rooms[0].tolist() == rooms[1].tolist()


def test_windows_are_read_by_batches_and_say_what_they_hold(tmp_path):
    (tmp_path / "a.txt").write_text("abcdef")
    (tmp_path / "b.txt").write_text("KLM")
    documents = text(str(tmp_path), None)
    windows = packed(documents, 8)
    assert datasets.packed is packed
    assert bytes(windows[0]["input_ids"].tolist()) == b"abcdeKL\0"
    assert bytes(windows[0]["labels"][:7].tolist()) == b"bcdefLM"
    assert windows[0]["position_ids"].tolist() == [0, 1, 2, 3, 4, 0, 1, 0]
    assert windows[0]["document_ids"].tolist() == [0, 0, 0, 0, 0, 1, 1, -1]
    assert windows.path_of(0) == "a.txt from byte 0, b.txt from byte 0"
    assert windows.fingerprint() != packed(documents, 9).fingerprint()
    assert windows.fingerprint() == packed(text(str(tmp_path), None), 8).fingerprint()
    assert windows.unread
    small = packed(documents, 3)
    assert [one["input_ids"].tolist() for one in small.__getitems__([2, 0])] == [
        small[2]["input_ids"].tolist(),
        small[0]["input_ids"].tolist(),
    ]
    assert not hasattr(packed(Documents([3]), 4), "fingerprint")


def test_long_documents_are_split_cut_or_refused():
    documents = Documents([10, 2])
    assert packed(documents, 4).lengths.tolist() == [4, 4, 4]
    assert packed(documents, 4, long="truncate").lengths.tolist() == [4, 2]
    with pytest.raises(DataError, match="document 0 has 10 tokens"):
        packed(documents, 4, long="refuse")


class Wrong(Documents):
    def __init__(self, lengths, items):
        super().__init__(lengths)
        self.items = items


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([1, 2], {}, "no `lengths`"),
        (Wrong([1.5], [0]), {}, "float64"),
        (Wrong([1, 2], [0]), {}, "of shape \\(1,\\)"),
        (Documents([3]), {"window": 0}, "from 1 on"),
        (Documents([3]), {"order": "fast"}, "best_fit or as_is"),
        (Documents([3]), {"long": "keep"}, "split or truncate or refuse"),
        (Documents([3]), {"labels": "none"}, "next or same"),
    ],
)
def test_what_is_wrong_is_told_at_once(data, options, message):
    with pytest.raises(DataError, match=message):
        packed(data, **{"window": 4, **options})


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"input_ids": [1]}, "has 1 tokens, but `lengths` says 2"),
        ({"tokens": [1, 2]}, "a dict with input_ids"),
        ({"input_ids": [1.5, 2]}, "whole numbers"),
        ({"input_ids": [1, 2], "labels": [1]}, "2 tokens and 1 labels"),
        ("ab", "is a str"),
    ],
)
def test_an_item_of_another_form_is_named(item, message):
    with pytest.raises(DataError, match=message):
        packed(Wrong([2], [item]), 4)[0]
