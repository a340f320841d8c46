"""In what two files of one artifact differ, to the number and the bit."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from epochal.tasks.audit.in_what import parts_that_differ


def differing(folder, stored, computed, dump, suffix):
    paths = folder / f"stored.{suffix}", folder / f"computed.{suffix}"
    for path, body in zip(paths, (stored, computed), strict=True):
        dump(body, path)
    return parts_that_differ("model", *paths)


def tensors(folder, stored, computed):
    return differing(folder, stored, computed, save_file, "safetensors")


def tables(folder, stored, computed):
    def dump(columns, path):
        pq.write_table(pa.table(columns), path)

    return differing(folder, stored, computed, dump, "parquet")


def documents(folder, stored, computed):
    return differing(
        folder, stored, computed, lambda body, path: path.write_text(json.dumps(body)), "json"
    )


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64]
)
def test_one_flipped_bit_is_one_number_of_one_tensor_and_where(dtype, tmp_path):
    weight = torch.arange(12).reshape(3, 4).to(dtype)
    flipped = weight.clone()
    flipped.reshape(-1).view(torch.uint8)[6 * dtype.itemsize] ^= 1
    before = {"head.weight": weight, "head.bias": torch.zeros(3)}
    (part,) = tensors(tmp_path, before, {**before, "head.weight": flipped})
    assert (part.artifact, part.part) == ("model", "head.weight")
    assert (part.different, part.of, part.bits, part.first) == (1, 12, 1, (1, 2))
    assert part.stored == 6
    assert part.computed == flipped[1, 2].item()
    assert part.largest == pytest.approx(abs(flipped[1, 2].item() - 6))
    assert part.text.startswith("model: head.weight: 1 of 12 numbers (1 bit in all), the first at")


def test_another_kernel_moves_many_numbers_by_a_little(tmp_path):
    weight = torch.linspace(0.5, 1, 100)
    (part,) = tensors(tmp_path, {"w": weight}, {"w": weight * (1 + 2e-7)})
    assert part.different > 50
    assert 0 < part.largest < 1e-6


def test_what_is_no_number_or_has_no_shape_is_compared_by_its_bits(tmp_path):
    nan, zero = torch.tensor([float("nan")]), torch.tensor(0.0)
    same = {"n": nan, "z": zero}
    assert tensors(tmp_path, same, {name: one.clone() for name, one in same.items()}) == []
    n, z = tensors(tmp_path, same, {"n": torch.tensor([1.0]), "z": -zero})
    assert (n.stored, n.computed, n.largest) == ("nan", 1.0, None)
    assert (z.first, z.bits, z.largest) == ((), 1, 0.0)
    json.dumps([n.as_object(), z.as_object()], allow_nan=False)


def test_tensors_that_are_not_alike_are_named(tmp_path):
    found = tensors(
        tmp_path,
        {"a": torch.zeros(2), "b": torch.zeros(2), "gone": torch.zeros(1)},
        {"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.float64), "new": torch.zeros(1)},
    )
    assert {part.part: part.problem for part in found} == {
        "gone": "only what is stored has it",
        "new": "only what is computed has it",
        "a": "torch.float32 of shape (2,) is stored, torch.float32 of shape (3,) computed",
        "b": "torch.float32 of shape (2,) is stored, torch.float64 of shape (2,) computed",
    }
    assert "model: gone: only what is stored" in found[0].text


def test_a_table_is_compared_by_its_columns(tmp_path):
    columns = {
        "id": np.arange(5),
        "loss": np.linspace(0, 1, 5, dtype=np.float32),
        "key": ["a", "b", "c", "d", "e"],
    }
    other = {**columns, "loss": columns["loss"].copy(), "key": ["a", "b", "x", "d", "e"]}
    other["loss"][3] = 2
    loss, key = tables(tmp_path, columns, other)
    assert (loss.part, loss.different, loss.of, loss.first) == ("loss", 1, 5, (3,))
    assert (loss.stored, loss.computed, loss.largest) == (0.75, 2.0, 1.25)
    assert (key.part, key.first, key.stored, key.computed) == ("key", (2,), "c", "x")
    shorter = {name: column[:4] for name, column in columns.items()}
    assert "of shape (5,) is stored" in tables(tmp_path, columns, shorter)[0].problem


def test_a_document_is_compared_by_its_places(tmp_path):
    found = documents(
        tmp_path,
        {"step": 3, "groups": [{"lr": 0.5}, {"lr": 1}], "name": "x"},
        {"step": 3, "groups": [{"lr": 0.5}, {"lr": 2}], "name": None},
    )
    told = [(part.part, part.stored, part.computed, part.largest) for part in found]
    assert told == [("groups.1.lr", 1, 2, 1), ("name", "x", "None", None)]


def test_what_has_no_numbers_is_alike_and_hides_nothing_beside_it(tmp_path):
    none = {"none": torch.zeros(0, 3), "w": torch.zeros(2)}
    (part,) = tensors(tmp_path, none, {**none, "w": torch.tensor([0.0, 1.0])})
    assert (part.part, part.first) == ("w", (1,))
    column = pa.array([], pa.float32())
    assert tables(tmp_path, {"loss": column}, {"loss": column}) == []


def test_lists_in_a_column_are_compared_to_the_bit_however_long_they_are(tmp_path):
    long, other = [float(n) for n in range(1200)], [float(n) for n in range(1200)]
    other[600] += 1e-9
    (part,) = tables(tmp_path, {"probabilities": [long, long]}, {"probabilities": [long, other]})
    assert (part.different, part.of, part.first) == (1, 2, (1,))


@pytest.mark.parametrize(
    ("stored", "computed"),
    [({"a": None}, {}), ({}, {"a": None}), (True, 1), (1, 1.0), (0.0, -0.0), (10**400, 1)],
)
def test_values_of_a_document_that_python_takes_for_alike_are_not(stored, computed, tmp_path):
    (part,) = documents(tmp_path, {"x": stored}, {"x": computed})
    assert part.part in {"x", "x.a"}
    assert documents(tmp_path, {"x": stored}, {"x": stored}) == []


def test_what_is_no_number_on_both_sides_is_alike(tmp_path):
    assert documents(tmp_path, {"x": float("nan")}, {"x": float("nan")}) == []


@pytest.mark.parametrize("make", [tensors, tables])
def test_large_integers_are_told_to_the_last_digit(make, tmp_path):
    made = torch.tensor if make is tensors else list
    (part,) = make(tmp_path, {"n": made([2**62])}, {"n": made([2**62 + 1])})
    assert (part.stored, part.computed, part.largest) == (2**62, 2**62 + 1, 1.0)
    assert f"{2**62} → {2**62 + 1}" in part.text
