"""YAML as people mean it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochal.data.errors import ConfigError
from epochal.tasks.config.yaml_reader import MAX_DEPTH, parse_yaml, read_yaml_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("3.0e-3", 0.003), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-2", -2),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("true", True), ("false", False),
        ("True", "True"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"),
        ("010", "010"), ("0x1F", "0x1F"), ("1_000", "1_000"), ("~", None), ("null", None),
        ("", None), (".nan", ".nan"), (".inf", ".inf"), ("'3'", "3"),
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
