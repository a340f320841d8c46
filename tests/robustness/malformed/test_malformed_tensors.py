"""Tensors and checkpoints from an enemy: loaded as they are, or refused with the file's name."""

import copy
import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.numbers.tiny_model import bits, new_state, run_epoch, samples, save_tensors
from support.stores.malformed_bytes import (
    STRANGE,
    mangled,
    mutated,
    safetensors_bytes,
    single_changes,
    told,
)

from epochal.data.errors import CorruptObject, StateMismatch
from epochal.engine.checkpoint.serialize import (
    StateParts,
    load_state,
    load_tensors,
    split_state,
)

ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.tensor([True, False]),
    "scalar": torch.tensor(3, dtype=torch.int64),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "nothing": torch.ones(0, 4),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "whole"
    save_tensors(TENSORS, path)
    return path.read_bytes()


def load(path, data):
    path.write_bytes(data)
    return load_tensors(path, device="cpu")


def refused(path, data):
    with pytest.raises(CorruptObject) as caught:
        load(path, data)
    assert str(path) in str(caught.value)
    return str(caught.value)


def same(found):
    return found.keys() == TENSORS.keys() and all(
        found[name].dtype == one.dtype
        and found[name].shape == one.shape
        and found[name].contiguous().flatten().view(torch.uint8).equal(
            one.flatten().view(torch.uint8)
        )
        for name, one in TENSORS.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', b"abcd"),
        ({"a": {**ENTRY, "shape": [0, 2**63], "data_offsets": [0, 0]}}, b""),
        ({"a": {**ENTRY, "shape": [2**32, 2**32]}}, b"abcd"),
        ({"a": {**ENTRY, "shape": [-1]}}, b"abcd"),
        ({"a": {**ENTRY, "shape": [1.0]}}, b"abcd"),
        ({"a": {**ENTRY, "shape": [True]}}, b"abcd"),
        ({"a": {**ENTRY, "data_offsets": [0, 400]}}, b"abcd"),
        ({"a": {**ENTRY, "data_offsets": [4, 0]}}, b"abcd"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, b"abcd"),
        ({"a": {**ENTRY, "dtype": "PICKLE"}}, b"abcd"),
        ({"a": ENTRY, "b": ENTRY}, b"abcd"),
        ({"a": 3}, b"abcd"),
        ([], b""),
        ({"a": ENTRY}, b"abc"),
        ({"a": ENTRY}, b"abcde"),
        ({"__metadata__": {"a": 1}, "a": ENTRY}, b"abcd"),
        (b'{"a":NaN}', b""),
        (b"[" * 100_000, b""),
        (b'{"a":' + b"9" * 5000 + b"}", b""),
        (b'{"\\ud800":%b}' % json.dumps(ENTRY).encode(), b"abcd"),
        (b"\xef\xbb\xbf{}", b""),
    ],
)
def test_what_no_honest_file_has_is_refused(tmp_path, header, data):
    text = refused(tmp_path / "x.safetensors", safetensors_bytes(header, data))
    assert "no safetensors file" in text


def test_a_flag_that_is_neither_0_nor_1_is_refused(tmp_path):
    header = {"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}
    assert "0 nor 1" in refused(tmp_path / "x.safetensors", safetensors_bytes(header, b"\x07"))


@pytest.mark.parametrize("length", [3, 1 << 25, 1 << 27, 2**63, 2**64 - 1])
def test_a_header_longer_than_its_file_is_refused(tmp_path, length):
    text = refused(tmp_path / "x.safetensors", struct.pack("<Q", length) + b"{}")
    assert "header" in text


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/passwd", "a\0b", "a\nb", "os:system", ""])
def test_a_name_is_a_key_and_never_a_path(tmp_path, name):
    found = load(tmp_path / "x", safetensors_bytes({name: ENTRY}, b"\0\0\x80?"))
    assert found[name].tolist() == [1.0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_every_cut_is_refused(whole, tmp_path):
    for length in range(len(whole)):
        refused(tmp_path / "cut", whole[:length])
    refused(tmp_path / "long", whole + b"\0")


def test_a_flipped_bit_of_the_header_loads_other_tensors_only_under_other_names(whole, tmp_path):
    """What a bit changes inside the tensors is found by the file's digest alone."""
    header = struct.unpack("<Q", whole[:8])[0]
    for position in range(8 + header):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        try:
            found = load(tmp_path / "flipped", bytes(flipped))
        except CorruptObject as error:
            told(error, "flipped")
        else:
            assert same(found) or found.keys() != TENSORS.keys() or _other_types(found)


def _other_types(found):
    return any(
        found[name].dtype != one.dtype or found[name].shape != one.shape
        for name, one in TENSORS.items()
    )


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_mangled_files_load_or_are_refused(whole, tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("mangled") / "x"
    path.write_bytes(drawn.draw(mangled(whole)))
    try:
        load_tensors(path, device="cpu")
    except CorruptObject as error:
        told(error, path)


@given(mutated({"a": ENTRY, "b": {"dtype": "I64", "shape": [2, 1], "data_offsets": [4, 20]}}))
@example({"a": {**ENTRY, "shape": [0, 2**63]}, "b": {}})  # torch: TypeError
@settings(max_examples=150, deadline=None)
def test_mutated_headers_load_or_are_refused(tmp_path_factory, header):
    path = tmp_path_factory.mktemp("mutated") / "x"
    path.write_bytes(safetensors_bytes(header, bytes(20)))
    try:
        load_tensors(path, device="cpu")
    except CorruptObject as error:
        told(error, path)


# --- the document of a checkpoint ----------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    state = new_state(optimizer=torch.optim.AdamW)
    run_epoch(state, *samples(16))
    parts = split_state(state)
    return StateParts(
        model={name: one.clone() for name, one in parts.model.items()},
        optimizer={name: one.clone() for name, one in parts.optimizer.items()},
        document=json.loads(json.dumps(parts.document)),
    )


def try_to_load(parts, document):
    state = new_state(optimizer=torch.optim.AdamW, seed=9)
    load_state(state, StateParts(parts.model, parts.optimizer, document))
    return state


def test_a_checkpoints_document_with_any_one_value_changed_loads_or_is_refused(trained):
    groups = {**trained.document, "slots": {}}
    slot = {"slots": {"head.bias": trained.document["slots"]["head.bias"]}}
    documents = [body for _, body in single_changes(groups)]
    documents += [{**trained.document, **body} for _, body in single_changes(slot)]
    refused_count = 0
    for document in documents:
        try:
            state = try_to_load(trained, copy.deepcopy(document))
        except (CorruptObject, StateMismatch):
            refused_count += 1
            continue
        assert type(state.updates_done) is int
        assert state.updates_done >= 0
        assert [len(group["params"]) for group in state.optimizer.param_groups] == [6]
        assert all(isinstance(one, dict) for one in state.optimizer.state.values())
    assert refused_count > len(documents) // 4


@pytest.mark.parametrize("name", ["params", "lr", "initial_lr", "param_names"])
def test_a_document_never_replaces_what_the_config_gives(trained, name):
    document = copy.deepcopy(trained.document)
    document["groups"][0]["options"][name] = [1]
    with pytest.raises(CorruptObject, match="no optimizer's state"):
        try_to_load(trained, document)


@pytest.mark.parametrize("value", [one for one in STRANGE if type(one) is not int], ids=repr)
def test_the_count_of_updates_is_a_count(trained, value):
    with pytest.raises(CorruptObject, match="updates_done"):
        try_to_load(trained, {**trained.document, "updates_done": value})


@pytest.mark.parametrize(
    "value",
    [{"$float": 10**400}, {"$float": []}, {"$tensor": []}, {"$tensor": "../x"}, {"$tuple": 3}],
    ids=repr,
)
def test_what_stands_for_a_value_is_of_its_kind(trained, value):
    document = copy.deepcopy(trained.document)
    document["groups"][0]["options"]["eps"] = value
    with pytest.raises(CorruptObject, match="lacks or misstates"):
        try_to_load(trained, document)


def test_a_refused_document_says_nothing_of_pickle_and_an_honest_one_loads(trained):
    state = try_to_load(trained, copy.deepcopy(trained.document))
    tensors, document = bits(state)
    assert document == trained.document
    assert np.frombuffer(tensors["head.bias"], np.float32).tolist() == (
        trained.model["head.bias"].tolist()
    )
