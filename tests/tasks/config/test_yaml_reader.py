"""YAML as people mean it."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.errors import ConfigError
from epochal.tasks.config.yaml_reader import MAX_DEPTH, parse_yaml, read_yaml_mapping

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("3.0e-3", 0.003), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-2", -2),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("true", True), ("false", False),
        ("True", "True"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"),
        ("010", "010"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("~", None), ("null", None),
        ("", None), ("'.nan'", ".nan"), ("'3'", "3"),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ("{a: {b: 1}}", {"a": {"b": 1}}), ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_a_scalar_means_what_it_looks_like(text, value):
    assert parse_yaml(text, name="x") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", ["line 2", "'a'", "twice"]),
        ("a: &x 1\nb: *x", ["line 2", "alias", "*x"]),
        ("a: !!python/object/apply:os.system [ls]", ["tag"]),
        ("a: !mine 3", ["tag", "!mine"]),
        ("a: [1, 2", ["not valid YAML"]),
        ("a: 1\n---\nb: 2", ["not valid YAML"]),
        ("? [1, 2]\n: 3", ["key must be a word"]),
        ("a: " + "[" * 200 + "]" * 200, ["nested deeper"]),
        ("\tx: 1", ["not valid YAML"]),
    ],
)
def test_surprises_are_refused_with_their_line(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, name="c.yaml")
    for word in ["c.yaml", *words]:
        assert word in str(caught.value)


def test_a_bomb_of_brackets_ends_in_an_error_not_in_a_crash():
    with pytest.raises(ConfigError, match=f"deeper than {MAX_DEPTH}"):
        parse_yaml("a: " + "[" * 100_000, name="x")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        parse_yaml(text, name="x")


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"- 1\n- 2\n", "a list"), (b"hello", "a str"), (b"", "nothing"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, word):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=word):
        read_yaml_mapping(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml_mapping(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        read_yaml_mapping(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".inf", math.inf), ("-.inf", -math.inf), ("+.Inf", math.inf), ("-.INF", -math.inf),
        ("[.nan, .NaN, .NAN]", [math.nan] * 3), ("nan", "nan"), ("inf", "inf"), ("-.nan", "-.nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_numbers(text, value):
    assert repr(parse_yaml(text, name="x")) == repr(value)


def test_a_character_that_json_escapes_in_two_halves_is_one(tmp_path):
    assert parse_yaml(r'{"\ud83e\udd8a": ["a\ud83d\ude00b"]}', name="x") == {"🦊": ["a😀b"]}
    for text in (r'"\ud83e"', r'"\udd8a\ud83e"', r'"\ud83e \udd8a"', r'{"\udd8a": 1}'):
        with pytest.raises(ConfigError, match="half of a character"):
            parse_yaml(text, name="x")


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@given(value=JSON)
def test_a_config_in_json_is_read_as_json(indent, value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "c.json"
    for escaped in (True, False):
        path.write_text(json.dumps({"a": value}, indent=indent, ensure_ascii=escaped))
        assert read_yaml_mapping(path) == {"a": value}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": 1,\n}', "line 2: not valid JSON"),
        (b'{"a": "\\ud83e"}', "half of a character"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper"),
        (b'{"a": ' + b"[" * 100_000, "nested deeper"),
        (b'{"a": 1e999}', "larger than any"),
        (b'{"a": ' + b"9" * 400 + b"}", "larger than any"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 characters"),
        ("{}".encode("utf-16"), "not UTF-8 but UTF-16 text; save it as UTF-8"),
        (b"\xff{}", "not UTF-8"),
        (b"[1]", "found a list"),
        (b'{"a": "\x00"}', "not valid JSON"),
    ],
)
def test_json_has_the_limits_of_yaml(tmp_path, content, words):
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_yaml_mapping(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("ending", [".yaml", ".json"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, ending):
    path = tmp_path / f"c{ending}"
    path.write_bytes(b'\xef\xbb\xbf{"a":\r\n 1}\r\n')
    assert read_yaml_mapping(path) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1" + "0" * 400, "larger than any floating-point number"),
        ("a:\n\tb: 1", "indent with spaces"),
        ("a: &x [1]\nb: {<<: *x}", "alias"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_further_surprises_are_refused_in_a_short_line(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_yaml(text, name="x")
    assert len(str(caught.value)) < 300


def test_a_file_that_is_not_there_has_a_name_like_one_that_is(tmp_path):
    (tmp_path / "digits.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"no such file; did you mean .*/digits\.yaml\?$"):
        read_yaml_mapping(tmp_path / "digits.yml")
    with pytest.raises(ConfigError, match="no such file; give the path of a YAML config"):
        read_yaml_mapping(tmp_path / "nowhere" / "other.yaml")
