"""YAML as people mean it: no duplicate keys, no aliases, no tags, `1e-3` a number, `no` a word.

Scalars follow the JSON schema of YAML 1.2.2 (section 10.2; `~` and an empty value are null), with
`.inf` and `.nan` of the core schema: only `true` and `false` are booleans, only decimal notation is
a number, and nothing is a date. A `.json` file is read as JSON, with the same limits.
"""

from __future__ import annotations

import codecs
import difflib
import json
import math
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from epochal.data.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NUMBER_CHARACTERS = 1000

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PREFIX = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    ("bool", re.compile(r"^(?:true|false)$"), ["t", "f"]),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
            r"|\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN)$"
        ),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; `_plain` turns them into data, so no constructor of PyYAML runs.

    Raises ConfigError at an alias, and before it would recurse deeper than `MAX_DEPTH`.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self._source, self._depth = name, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The node that begins here."""
        event = self.peek_event()  # type: ignore[no-untyped-call]  # as PyYAML has it
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{_line(event, self._source)}: the alias *{event.anchor} is not "
                "allowed; write the value out"
            )
        self._depth += 1
        if self._depth > MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            raise ConfigError(
                f"{_line(event, self._source)}: nested deeper than {MAX_DEPTH} levels"
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_PREFIX + _name, _pattern, _first)


def _where(node: yaml.Node, name: str) -> str:
    return f"{name}, line {node.start_mark.line + 1}"


def _scalar(node: yaml.ScalarNode, name: str) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    if kind == "str":
        return _text(node, name)
    pattern = next((pattern for known, pattern, _ in _SCALARS if known == kind), None)
    if pattern is None or pattern.match(node.value) is None:  # a tag that was written out
        raise ConfigError(f"{_where(node, name)}: the tag {node.tag!r} is not allowed; remove it")
    if kind == "null":
        return None
    if kind == "bool":
        return node.value == "true"
    _check_length(node.value, _where(node, name))
    return _number(node.value, kind, _where(node, name))


def _check_length(text: str, where: str) -> None:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise ConfigError(
            f"{where}: a number of {len(text)} characters; expected at most {MAX_NUMBER_CHARACTERS}"
        )


def _number(text: str, kind: str, where: str) -> int | float:
    """The number; `.inf` and `.nan` are numbers too. Raises ConfigError for one beyond floats."""
    if text.lstrip("+-").startswith((".i", ".I", ".n", ".N")):
        return float(text.replace(".", "", 1))
    if not math.isfinite(float(text)):
        raise ConfigError(f"{where}: {text:.60} is larger than any floating-point number")
    return int(text) if kind == "int" else float(text)


def _text(node: yaml.ScalarNode, name: str) -> str:
    return _whole_characters(node.value, _where(node, name))


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _whole_characters(text: str, where: str) -> str:
    """The text with the halves that JSON escapes a character by put together: a fox is two."""
    text = _PAIR.sub(_joined, text)
    if _SURROGATE.search(text):
        raise ConfigError(
            f"{where}: a text holds half of a character (an escape from \\ud800 to \\udfff without "
            "its other half); write the character itself"
        )
    if "\0" in text:
        raise ConfigError(
            f"{where}: a text holds the character \\0, which no name or path can hold"
        )
    return text


def _plain(node: yaml.Node, name: str, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{_where(node, name)}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, name)
    expected = "seq" if isinstance(node, yaml.SequenceNode) else "map"
    if node.tag != f"{_PREFIX}{expected}":
        raise ConfigError(f"{_where(node, name)}: the tag {node.tag!r} is not allowed; remove it")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name, depth + 1) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{_where(key_node, name)}: a key must be a word")
        key = _text(key_node, name)
        if key in data:
            raise ConfigError(
                f"{_where(key_node, name)}: the key {key!r} stands twice; remove one of the two"
            )
        data[key] = _plain(value_node, name, depth + 1)
    return data


def _line(event: yaml.Event, name: str) -> str:
    mark = event.start_mark
    return name if mark is None else f"{name}, line {mark.line + 1}"


def parse_yaml(text: str, *, name: str) -> Any:
    """`text` as plain data; `name` stands in errors.

    Raises ConfigError with the line for broken YAML, duplicate keys, aliases, tags, several
    documents and nesting deeper than 32 levels.
    """
    try:
        node = _Loader(text, name).get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        if "'\\t'" in problem:
            problem += "; indent with spaces"
        raise ConfigError(f"{name}{line}: not valid YAML: {problem}") from error
    except (ValueError, OverflowError) as error:  # escapes and directives with numbers too large
        raise ConfigError(f"{name}: not valid YAML: {error}") from error
    return None if node is None else _plain(node, name)


def parse_json(text: str, *, name: str) -> Any:
    """`text` as JSON, with the limits of `parse_yaml`. Raises ConfigError."""
    try:
        data = json.loads(
            text,
            object_pairs_hook=partial(_object, name),
            parse_int=partial(_json_number, name, "int"),
            parse_float=partial(_json_number, name, "float"),
        )
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}, line {error.lineno}: not valid JSON: {error.msg}") from error
    except RecursionError:
        raise ConfigError(f"{name}: nested deeper than {MAX_DEPTH} levels") from None
    return _checked(data, name)


def _object(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ConfigError(f"{name}: the key {key!r} stands twice; remove one of the two")
    return dict(pairs)


def _json_number(name: str, kind: str, text: str) -> int | float:
    _check_length(text, name)
    return _number(text, kind, name)


def _checked(value: Any, name: str, depth: int = 0) -> Any:
    """The value, if it is not nested too deep and every text is whole."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"{name}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return _whole_characters(value, name)
    if isinstance(value, list):
        return [_checked(item, name, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            _whole_characters(key, name): _checked(item, name, depth + 1)
            for key, item in value.items()
        }
    return value


def _near(path: Path) -> str | None:
    """A YAML file in that folder whose name is much like it."""
    there = [one.name for one in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, there, n=1)
    return f"did you mean {path.with_name(near[0])}?" if near else None


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`. Raises ConfigError if there is none."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: a config has at most {MAX_CONFIG_BYTES} bytes")
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ConfigError(f"{path}: not UTF-8 but UTF-16 text; save it as UTF-8")
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file; {_near(path) or 'give the path of a YAML config'}"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; give the path of a YAML config in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with NUL in it
        cause = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {cause}") from error
    parse = parse_json if path.suffix.lower() == ".json" else parse_yaml
    mapping = parse(text, name=str(path))
    if not isinstance(mapping, dict):
        kind = "nothing" if mapping is None else f"a {type(mapping).__name__}"
        raise ConfigError(f"{path}: expected a mapping such as `name: digits`, found {kind}")
    return mapping
