"""YAML as people mean it: no duplicate keys, no aliases, no tags, `1e-3` a number, `no` a word.

Scalars follow the JSON schema of YAML 1.2 (§10.2, with `~` and an empty value as null): only
`true` and `false` are booleans, only decimal notation is a number, and nothing is a date.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from epochal.data.errors import ConfigError

MAX_CONFIG_BYTES = 1 << 20
MAX_DEPTH = 32

_PREFIX = "tag:yaml.org,2002:"
_SCALARS = (
    ("null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""]),
    ("bool", re.compile(r"^(?:true|false)$"), ["t", "f"]),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
        ),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; `_plain` turns them into data, so no constructor of PyYAML runs."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_PREFIX + _name, _pattern, _first)


def _where(node: yaml.Node, name: str) -> str:
    return f"{name}, line {node.start_mark.line + 1}"


def _scalar(node: yaml.ScalarNode, name: str) -> Any:
    kind = node.tag.removeprefix(_PREFIX)
    match kind:
        case "str":
            return node.value
        case "null":
            return None
        case "bool":
            return node.value == "true"
        case "int":
            return int(node.value)
        case "float":
            return float(node.value)
    raise ConfigError(f"{_where(node, name)}: the tag {node.tag!r} is not allowed; remove it")


def _plain(node: yaml.Node, name: str, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{_where(node, name)}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, name)
    if node.tag not in {f"{_PREFIX}seq", f"{_PREFIX}map"}:
        raise ConfigError(f"{_where(node, name)}: the tag {node.tag!r} is not allowed; remove it")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, name, depth + 1) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{_where(key_node, name)}: a key must be a word")
        key = key_node.value
        if key in data:
            raise ConfigError(
                f"{_where(key_node, name)}: the key {key!r} stands twice; remove one of the two"
            )
        data[key] = _plain(value_node, name, depth + 1)
    return data


def _line(event: yaml.Event, name: str) -> str:
    mark = event.start_mark
    return name if mark is None else f"{name}, line {mark.line + 1}"


def _refuse_aliases(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError(
                f"{_line(event, name)}: the alias *{event.anchor} is not "
                "allowed; write the value out"
            )
        # Composing recurses, so depth is checked on the flat stream of events first.
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"{_line(event, name)}: nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def parse_yaml(text: str, *, name: str) -> Any:
    """`text` as plain data; `name` stands in errors.

    Raises ConfigError with the line for broken YAML, duplicate keys, aliases, tags, several
    documents and nesting deeper than 32 levels.
    """
    try:
        _refuse_aliases(text, name)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{name}{line}: not valid YAML: {problem}") from error
    return None if node is None else _plain(node, name)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`. Raises ConfigError if there is none."""
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: {size} bytes; a config has at most {MAX_CONFIG_BYTES}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no such file; give the path of a YAML config"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; give the path of a YAML config in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    data = parse_yaml(text, name=str(path))
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: expected a mapping such as `name: digits`, found {found}")
    return data
