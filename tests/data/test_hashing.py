"""Digests and counter-based numbers: pinned, tagged, independent of their neighbours."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data import hashing

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_golden_digests_are_pinned():
    assert hashing.digest("stage/train", {"b": [1, 2.5, None], "a": "ä"}) == (
        "0fa0b712816e7353b3d3eefab676553bc69b839215835e3e0c12d8b968076c4d"
    )
    assert hashing.bytes_sha256(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert hashing.seed_64(7, "train", 3, 12) == 5022343326711801210
    assert hashing.hash_u64(np.array([0, 1, 2**40]), 7, 3).tolist() == [
        13353251830377257583,
        3524540357871312371,
        2277976252076724420,
    ]


def test_golden_text_ids_are_pinned():
    found = [hashing.text_id(text) for text in ("0", "train/cat/7.png", "ä")]
    assert found == [2451127069695670470, 1653124985101416254, 4874784853322634927]


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_text_id_is_a_whole_number_that_int64_holds_and_another_for_another_text(one, other):
    ids_N = np.array([hashing.text_id(one), hashing.text_id(other)], dtype=np.int64)
    assert (ids_N >= 0).all()
    assert (ids_N[0] == ids_N[1]) == (one == other)


def test_equal_values_of_two_kinds_have_two_digests():
    assert hashing.digest("train", [1]) != hashing.digest("mine", [1])


@given(PLAIN)
def test_canonical_json_is_a_fixed_point(value):
    once = hashing.canonical(value)
    assert hashing.canonical_json(once) == hashing.canonical_json(value)


def test_floats_that_differ_beyond_twelve_digits_are_one_rate():
    assert hashing.digest("x", 0.1 + 0.2) == hashing.digest("x", 0.3)
    assert hashing.digest("x", 0.3) != hashing.digest("x", 0.3000001)
    assert hashing.digest("x", 0.123456789012) == hashing.digest("x", 0.1234567890124)
    assert hashing.digest("x", 0.123456789012) != hashing.digest("x", 0.123456789013)
    assert hashing.digest("x", -0.0) == hashing.digest("x", 0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", object()])
def test_what_has_no_one_meaning_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        hashing.digest("x", value)


@pytest.mark.parametrize(("data", "expected"), [
    (b"", "99aa06d3014798d86001c324468d497f"),
    (b"epochal", "e680bca55397c8821331f04531f76d5f"),
])  # fmt: skip
def test_checksums_are_those_of_xxhsum(data, expected, tmp_path):
    (tmp_path / "x").write_bytes(data)
    assert hashing.file_checksum(tmp_path / "x") == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a", b"bc")], [("ab", b"c")]),
        ([("a", b"b:c")], [("a:b", b"c")]),
        ([("a", b"b"), ("c", b"d")], [("a", b"bc:d")]),
        ([("a", b"b"), ("c", b"")], [("a", b""), ("c", b"b")]),
    ],
)
def test_framed_parts_do_not_run_into_each_other(one, other):
    found = []
    for parts in (one, other):
        digest = hashing.ContentDigest("d")
        for tag, data in parts:
            digest.add(tag, data)
        found.append(digest.hexdigest())
    assert found[0] != found[1]


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=50, unique=True), st.integers(0, 9))
def test_an_ids_number_does_not_depend_on_the_ids_around_it(ids, epoch):
    together = hashing.hash_u64(np.array(ids), 7, epoch)
    alone = [int(hashing.hash_u64(np.array([one]), 7, epoch)[0]) for one in ids]
    assert together.tolist() == alone


def test_streams_are_independent_and_uniform():
    ids = np.arange(20_000)
    one, other = hashing.hash_uniform(ids, 7, 0), hashing.hash_uniform(ids, 7, 1)
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.03
    counts, _ = np.histogram(one, bins=20, range=(0, 1))
    assert counts.min() > 850
    assert counts.max() < 1150


def test_the_first_time_of_a_sample_has_the_numbers_of_before():
    ids, turns = np.array([5, 5, 9, 5]), np.array([0, 1, 0, 2])
    found = hashing.hash_repeated(ids, turns, "item", "train", 1, 2)
    plain = hashing.hash_u64(ids, "item", "train", 1, 2)
    assert (found == plain).tolist() == [True, False, True, False]
    assert len(set(found.tolist())) == 4
    assert hashing.hash_repeated(ids, None, "x").tolist() == hashing.hash_u64(ids, "x").tolist()
