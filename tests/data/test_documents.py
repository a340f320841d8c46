"""Documents: one byte string for one body, and nothing else is read."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject
from epochal.data.hashing import bytes_sha256

BODY = {"rate": 0.1 + 0.2, "tiny": 5e-324, "name": "ä\n", "list": [1, None, True, {}], "n": 2**80}

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)
bodies = st.dictionaries(st.text(max_size=6), values, max_size=6)


def raw(text: str) -> bytes:
    """A document with a right digest around any text."""
    return f'{{"body":{text},"sha256":"{bytes_sha256(text.encode())}"}}\n'.encode()


def nested(levels: int) -> dict:
    body: dict = {}
    for _ in range(levels - 1):
        body = {"a": body}
    return body


@given(bodies)
def test_a_body_comes_back_equal_and_gives_the_same_bytes(body):
    data = dump_document(body)
    loaded = load_document(data, name="x")
    assert loaded == body
    assert dump_document(loaded) == data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_keep_every_bit(value):
    loaded = load_document(dump_document({"v": value}), name="x")["v"]
    assert loaded.hex() == value.hex()
    assert math.copysign(1, loaded) == math.copysign(1, value)


def test_the_order_of_keys_changes_nothing():
    assert dump_document({"a": 1, "b": (2,)}) == dump_document({"b": [2], "a": 1})


def test_the_bytes_of_a_document_are_pinned():
    assert dump_document({"b": 0.1, "a": [1]}) == (
        b'{"body":{"a":[1],"b":0.1},"sha256":'
        b'"80ec72e08dec102d3f00e5887338e626311d5b8d48780100f83a4ab7e911c1dc"}\n'
    )


@given(bodies, st.data())
def test_one_flipped_bit_is_always_damage(body, draw):
    data = bytearray(dump_document(body))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(CorruptObject, match=r"record\.json"):
        load_document(bytes(data), name="record.json")


def test_every_truncation_is_damage():
    data = dump_document(BODY)
    for length in range(len(data)):
        with pytest.raises(CorruptObject, match="cut"):
            load_document(data[:length], name="cut")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_damage(data):
    with pytest.raises(CorruptObject):
        load_document(data, name="x")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (raw('{"a":1,"a":1}'), "digest"),
        (raw('{"a":NaN}'), "NaN"),
        (raw('{"a":-Infinity}'), "-Infinity"),
        (raw('{"a":1e999}'), "float values"),
        (raw("[1]"), "expected an object with"),
        (raw("null"), "expected an object with"),
        (raw('{"a": 1}'), "digest"),
        (raw('{"b":1,"a":1}'), "digest"),
        (raw('{"a":"ä"}'), "no JSON document"),
        (raw('{"a":' + "9" * 5000 + "}"), "no JSON document"),
        (b"[]", "expected an object with"),
        (b'{"body":{}}', "digest"),
        (b'{"body":{},"sha256":"x","more":1}', "digest"),
        (b'{"body":{},"body":{},"sha256":"x"}', "digest"),
        (b'{"body":{},"sha256":"x"}', "digest"),
        (dump_document({}) + b"\n", "digest"),
        (b"\xef\xbb\xbf" + dump_document({}), "no JSON document"),
        ('{"body":{}}'.encode("utf-16"), "no JSON document"),
        (b"[" * 5_000, "no JSON document"),
        (b"[" * 200_000, "lists and objects"),
        (raw(json.dumps(nested(65))), "at most 64 levels"),
    ],
)
def test_what_no_document_is_says_why(data, told):
    with pytest.raises(CorruptObject, match=rf"stages/record\.json.*{told}"):
        load_document(data, name="stages/record.json")


def test_a_document_that_is_too_large_is_not_parsed():
    data = dump_document({"a": "x" * 100})
    assert load_document(data, name="x", max_bytes=len(data))
    with pytest.raises(CorruptObject, match=f"{len(data)} bytes, expected at most"):
        load_document(data, name="x", max_bytes=len(data) - 1)


def test_sixty_four_levels_are_the_limit():
    body = nested(64)
    assert load_document(dump_document(body), name="x") == body
    with pytest.raises(ValueError, match="64 levels"):
        dump_document(nested(65))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"a": math.nan}, ValueError),
        ({"a": [math.inf]}, ValueError),
        ({1: 2}, TypeError),
        ({"a": {None: 2}}, TypeError),
        ({"a": b"bytes"}, TypeError),
        ({"a": {1, 2}}, TypeError),
    ],
)
def test_what_json_would_not_give_back_is_not_written(body, error):
    with pytest.raises(error):
        dump_document(body)


def test_what_would_take_too_much_memory_is_refused_before_it_is_parsed_and_never_written():
    dense = "[" + ",".join(["[]"] * 100_000) + "]"
    with pytest.raises(CorruptObject, match="lists and objects"):
        load_document(raw(f'{{"a":{dense}}}'), name="x")
    with pytest.raises(ValueError, match="lists and objects"):
        dump_document({"a": [[]] * 100_000})
    pairs = {"anchors": [[step, 1_700_000_000_000 + step] for step in range(20_000)]}
    assert load_document(dump_document(pairs), name="x") == pairs
