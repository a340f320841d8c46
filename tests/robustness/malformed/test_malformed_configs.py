"""Configs and addresses from an enemy: refused with file and line, whatever they hold."""

import os
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.runs.project import CONFIG
from support.stores.malformed_bytes import mangled, mutated, told

from epochal.data.errors import BadStore, ConfigError
from epochal.data.store.addresses import normalise_store
from epochal.tasks.config.load import load_config
from epochal.tasks.config.yaml_reader import MAX_CONFIG_BYTES, parse_yaml, read_yaml_mapping

TEXT = yaml.safe_dump(CONFIG).encode()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: " + "9" * 5000, "line 1: a number of 5000 characters"),
        ("a: 1." + "0" * 5000, "a number of 5002 characters"),
        ("a: 1e999", "line 1: 1e999 is larger than any floating-point number"),
        ("b: 1\na: -1e999", "line 2"),
        ('a: "\\ud800"', "half of a character"),
        ('"\\udfff": 1', "half of a character"),
        ('a: "\\U00110000"', "not valid YAML"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n--- a", "not valid YAML"),
        ("%YAML 2.0\n--- a", "line 1"),
        ("a: !!int x", "tag"),
        ("a: !!float x", "tag"),
        ("a: !!bool maybe", "tag"),
        ("a: !!null x", "tag"),
        ("a: !!map [1]", "tag"),
        ("a: !!seq {b: 1}", "tag"),
        ("a: !!set {b: null}", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!timestamp 2024-01-01", "tag"),
        ("%TAG !e! tag:yaml.org,2002:\n---\na: !e!python/name:os.system x", "tag"),
        ("!%ff%fe a", "not valid YAML"),
        ("a: *b", "alias"),
        ("a: &a [*a]", "alias"),
        ("- " * 20_000, "nested deeper"),
        ("{a: " * 20_000, "nested deeper"),
        ("? " * 20_000, "nested deeper"),
        ("1: a\n'1': b", "stands twice"),
        ("a: 1\n...\n%FOO\n---\nb: 2", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
    ],
)
def test_what_yaml_readers_stumble_over_is_refused(text, told):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, name="run.yaml")
    assert "run.yaml" in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "text", ["! x", "!!str x", "!!int 3", "!!float 1.5", "!!bool true", "!!null ''"]
)
def test_a_tag_that_says_what_stands_there_changes_nothing(text):
    bare = text.partition(" ")[2]
    expected = {"x": "x", "''": None}.get(bare, yaml.safe_load(bare))
    assert parse_yaml(text, name="x") == expected


def load(path, data):
    path.write_bytes(data)
    try:
        return load_config(path)
    except ConfigError as error:
        return str(error)


@given(mangled(TEXT))
@settings(max_examples=80, deadline=None)
def test_a_mangled_config_is_a_config_or_one_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("configs") / "run.yaml"
    found = load(path, data)
    assert not isinstance(found, str) or str(path) in found


@given(mutated(CONFIG))
@example({**CONFIG, "epochs": 10**4000})
@settings(max_examples=80, deadline=None)
def test_a_mutated_config_is_a_config_or_one_clear_error(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("configs") / "run.yaml"
    text = yaml.safe_dump(config, allow_unicode=False).encode("utf-8", "surrogatepass")
    found = load(path, text)
    assert not isinstance(found, str) or str(path) in found


@given(st.text(max_size=40))
@example("optimizer.args.lr=" + "9" * 5000)
@example("a=!!int x")
@example("__class__.x=1")
@example("train_data.args.split.x=1")
def test_any_override_is_set_or_refused(override):
    from epochal.tasks.config.load import apply_override

    data = {name: dict(one) if isinstance(one, dict) else one for name, one in CONFIG.items()}
    try:
        apply_override(data, override)
    except ConfigError as error:
        told(error, "--set")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (yaml.safe_dump(CONFIG).encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf\xef\xbb\xbfa: 1", "run.yaml"),
        (b"a: 1\xed\xa0\x80", "not UTF-8"),
        (b"x" * (MAX_CONFIG_BYTES + 1), "at most 1048576 bytes"),
    ],
)
def test_bytes_that_are_no_text_of_a_config_are_refused(tmp_path, data, told):
    assert told in load(tmp_path / "run.yaml", data)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load(tmp_path / "run.yaml", b"\xef\xbb\xbf" + TEXT).name == "blobs"


def test_a_pipe_without_an_end_is_read_to_the_limit_only(tmp_path):
    path = tmp_path / "run.yaml"
    os.mkfifo(path)
    written = []

    def feed():
        with path.open("wb", buffering=0) as stream:
            try:
                while True:
                    written.append(stream.write(b"# and so on\n" * 1000))
            except BrokenPipeError:
                return

    writer = threading.Thread(target=feed)
    writer.start()
    with pytest.raises(ConfigError, match="at most"):
        read_yaml_mapping(path)
    writer.join()
    assert sum(written) < 2 * MAX_CONFIG_BYTES


@pytest.mark.parametrize(
    "store",
    [
        "simplecache::s3://bucket/x", "filecache::s3://bucket", "zip://x::s3://bucket/a.zip",
        "blockcache://x", "reference://x", "s4://bucket", "no-such://x", "python://os",
    ],
)  # fmt: skip
def test_chains_and_unknown_schemes_are_refused_with_those_that_there_are(store):
    with pytest.raises(BadStore) as caught:
        normalise_store(store, folder=Path("/config"))
    text = str(caught.value)
    assert store in text
    known = text.rpartition(" are ")[2].split(", ")
    assert {"s3", "gs", "file", "memory"} <= set(known)
    assert not {"simplecache", "reference", "zip"} & set(known)
