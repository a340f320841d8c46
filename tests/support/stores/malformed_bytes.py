"""Bytes as an enemy would send them: right digests on wrong contents, changed trees and bits."""

import json
import struct

from hypothesis import strategies as st

from epochal.data.documents import dump_document, load_document
from epochal.data.hashing import bytes_sha256

# What stands in the place of a value: other types, limits, names that lead out of a folder.
STRANGE = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**53 + 1, 2**63, -(2**63), 10**30, "", "0",
    "../../x", "/etc/passwd", "a\0b", "\ud800", "NaN", "os:system", "x" * 300, [], {}, [[]],
    [None], {"": None}, {"a": {"b": []}}, "f" * 64,
)  # fmt: skip


def document(text):
    """A document with a right digest around any JSON text."""
    return f'{{"body":{text},"sha256":"{bytes_sha256(text.encode())}"}}\n'.encode()


def places(tree, path=()):
    """Paths of all values in a tree of JSON, the root's first."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))
        else:
            yield (*path, name)


def changed(tree, path, change):
    """A copy of the tree in which `change` was made to the container and name of one value."""
    copy = json.loads(json.dumps(tree))
    inside = copy
    for name in path[:-1]:
        inside = inside[name]
    change(inside, path[-1])
    return copy


def _set(value):
    def change(inside, name):
        inside[name] = value

    return change


def _remove(inside, name):
    del inside[name]


def _add(inside, name):
    if isinstance(inside, dict):
        inside[f"{name}_"] = inside[name]
    else:
        inside.append(inside[name])


def single_changes(tree):
    """(path, tree) of each value replaced by each strange one, removed, or there once more."""
    changes = [*map(_set, STRANGE), _remove, _add]
    for path in places(tree):
        if path:
            for change in changes:
                yield path, changed(tree, path, change)


@st.composite
def mutated(draw, tree):
    """The tree with one to three such changes."""
    for _ in range(draw(st.integers(1, 3))):
        paths = [path for path in places(tree) if path]
        if not paths:
            break
        change = draw(st.sampled_from([*map(_set, STRANGE), _remove, _add]))
        tree = changed(tree, draw(st.sampled_from(paths)), change)
    return tree


@st.composite
def mangled(draw, data):
    """The bytes with a bit flipped, a part cut out, doubled or put elsewhere, or a tail."""
    place = draw(st.integers(0, len(data) - 1))
    end = draw(st.integers(place, min(len(data), place + 64)))
    part = data[place:end]
    return draw(
        st.sampled_from(
            [
                data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))])
                + data[place + 1 :],
                data[:place],
                data[:place] + data[end:],
                data[:end] + part + data[end:],
                data[:place] + bytes(len(part)) + data[end:],
                data + part,
                part + data,
            ]
        )
    )  # fmt: skip


def safetensors_bytes(header, data=b""):
    """A safetensors file with any header: an object, or the header's own bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def replaced(store, path, data):
    """Puts other bytes in an object's place."""
    store.delete(path)
    store.put_new(path, data)


def rewritten(store, path, change):
    """Puts another body, with a right digest, in a document's place."""
    body = load_document(store.read(path), name=path, max_bytes=1 << 28)
    change(body)
    replaced(store, path, dump_document(body))


def told(error, name):
    """The error says which file it is about."""
    assert str(name) in str(error), error
