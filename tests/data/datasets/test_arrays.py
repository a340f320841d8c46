"""Arrays: one data set from files of any kind, in memory or on the disk; nothing is unpickled."""

import pickle
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch

from epochal.data.datasets import arrays as arrays_function
from epochal.data.datasets.arrays import arrays
from epochal.data.errors import DataError
from epochal.data.files.named import Files, list_files
from epochal.data.loading.items import in_tensors

X = np.arange(60, dtype=np.float64).reshape(20, 3)
Y = (np.arange(20) % 4).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "both.npz", x=X, y=Y)
    safetensors.numpy.save_file({"x": X, "y": Y}, tmp_path / "both.safetensors")
    torch.save({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, tmp_path / "both.pt")
    return tmp_path


def refused(*given, **named):
    with pytest.raises(DataError) as caught:
        arrays(*given, **named)
    return str(caught.value)


def test_files_of_all_kinds_give_the_same_rows(folder):
    sets = [arrays(str(folder / "x.npy"), str(folder / "y.npy"))]
    sets += [
        arrays("x", "y", str(folder / f"both.{kind}")) for kind in ("npz", "safetensors", "pt")
    ]
    for one in sets:
        assert in_tensors(one, np.arange(3)) is not None
        features, labels = one.tensors
        assert (features.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert np.array_equal(features.numpy(), X)
        assert one.targets.tolist() == Y.tolist()
    assert sets[0].path_of(3) == "x.npy row 3"
    assert arrays_function is arrays


def test_large_files_are_read_from_the_disk_with_the_same_rows(folder, monkeypatch):
    given = (str(folder / "x.npy"), str(folder / "y.npy"))
    split = {"part": "validation", "fraction": 0.25}
    held = arrays(*given, split=split)
    monkeypatch.setattr(sys.modules[arrays.__module__], "IN_MEMORY_BYTES", 1)
    mapped = arrays(*given, split=split)
    assert in_tensors(mapped, np.arange(2)) is None
    assert len(mapped) == len(held) == 4
    assert sorted(mapped.targets.tolist()) == [0, 1, 2, 3]
    items = mapped.__getitems__([3, 0, 3])
    for item, position in zip(items, (3, 0, 3), strict=True):
        assert item[0].equal(held[position][0])
        assert item[1].equal(held[position][1])
        assert item[0].dtype == torch.float32
    assert mapped[-1][0].equal(held[3][0])
    assert mapped.path_of(2) == held.path_of(2)
    assert mapped.fingerprint() == held.fingerprint()
    with pytest.raises(IndexError):
        mapped[4]
    named = arrays(*given, more={"weight": str(folder / "y.npy")})
    assert named.__getitems__([5])[0].keys() == {"input", "target", "weight"}


def test_more_arrays_make_dicts_of_items(folder):
    found = arrays("x", "y", str(folder / "both.npz"), more={"weight": "y"}, dtype="float64")
    assert found[2].keys() == {"input", "target", "weight"}
    assert found[2]["input"].dtype == torch.float64
    assert arrays("x", path=str(folder / "both.npz"))[1][0].shape == (3,)


def test_the_parts_are_disjoint_stratified_and_together_everything(folder):
    parts = [
        arrays("x", "y", str(folder / "both.npz"), {"part": part, "fraction": 0.4})
        for part in ("train", "validation")
    ]
    rows = [set(one.tensors[0][:, 0].tolist()) for one in parts]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == set(X[:, 0].tolist())
    assert np.bincount(parts[1].targets).tolist() == [2, 2, 2, 2]


def test_the_fingerprint_changes_with_the_content_and_nothing_else(folder, tmp_path_factory):
    before = arrays("x", "y", str(folder / "both.npz"))
    assert before.fingerprint() == arrays("x", "y", str(folder / "both.npz")).fingerprint()
    assert before.fingerprint() != arrays("x", "x", str(folder / "both.npz")).fingerprint()
    other = tmp_path_factory.mktemp("other")
    np.save(other / "x.npy", X)
    np.save(other / "y.npy", Y)
    here, there = (
        arrays(str(one / "x.npy"), str(one / "y.npy")).fingerprint() for one in (folder, other)
    )
    assert here == there
    X2 = X.copy()
    X2[7, 1] += 1
    np.save(other / "x.npy", X2)
    assert arrays(str(other / "x.npy"), str(other / "y.npy")).fingerprint() != here


class Harmful:
    def __reduce__(self):
        return (print, ("it was unpickled",))


def test_what_is_wrong_is_named_and_nothing_is_unpickled(folder, capsys):
    path = str(folder / "both.npz")
    assert "did you mean 'x'" in refused("x1", "y", path)
    np.save(folder / "objects.npy", np.array([Harmful()]), allow_pickle=True)
    assert "objects.npy cannot be read" in refused(str(folder / "objects.npy"))
    (folder / "bad.pt").write_bytes(pickle.dumps(Harmful(), protocol=2))
    assert "bad.pt cannot be read" in refused(str(folder / "bad.pt"))
    torch.save([1, 2], folder / "list.pt")
    assert "holds a list" in refused(str(folder / "list.pt"))
    assert "unpickled" not in capsys.readouterr().out
    np.save(folder / "short.npy", Y[:7])
    assert "20 rows" in refused(str(folder / "x.npy"), str(folder / "short.npy"))
    np.save(folder / "none.npy", X[:0])
    assert "none.npy" in refused(str(folder / "none.npy"))
    np.save(folder / "one.npy", np.float32(1))
    assert "one number" in refused(str(folder / "one.npy"))
    np.save(folder / "texts.npy", np.array(["a"]))
    assert "expected numbers" in refused(str(folder / "texts.npy"))
    assert "as `path`" in refused(path)
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:-9])
    assert "cut.npy cannot be read" in refused(str(folder / "cut.npy"))
    (folder / "cut.npz").write_bytes((folder / "both.npz").read_bytes()[:-50])
    assert "cut.npz cannot be read" in refused("x", path=str(folder / "cut.npz"))
    (folder / "cut.safetensors").write_bytes((folder / "both.safetensors").read_bytes()[:-9])
    assert "cut.safetensors cannot be read" in refused("x", path=str(folder / "cut.safetensors"))
    assert "nothing is found" in refused(str(folder / "absent.npy"))
    (folder / "misnamed.npz").write_bytes((folder / "x.npy").read_bytes())
    assert "misnamed.npz cannot be read" in refused("x", path=str(folder / "misnamed.npz"))
    assert "expected one file" in refused(str(folder))
    assert "float32" in refused("x", "y", path, dtype="int8")
    assert "of its own" in refused("x", "y", path, more={"target": "x"})


def test_arrays_of_an_address_are_copied_into_the_cache_once(folder, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.setenv("EPOCHAL_CACHE", str(tmp_path / "cache"))
    memory = MemoryFileSystem()
    memory.pipe("/arrays-test/x.npy", (folder / "x.npy").read_bytes())
    try:
        for _ in range(2):
            assert np.array_equal(arrays("memory://arrays-test/x.npy").tensors[0].numpy(), X)
        assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1
    finally:
        memory.rm("/arrays-test", recursive=True)


def test_of_large_files_slices_are_hashed(folder, monkeypatch):
    monkeypatch.setattr("epochal.data.files.named.WHOLE_BYTES", 1000)
    monkeypatch.setattr("epochal.data.files.named.SLICE_BYTES", 16)
    path = folder / "large.bin"
    path.write_bytes(bytes(100_000))

    def found() -> Files:
        return list_files(str(path), suffixes=(".bin",), name="arrays")

    before = found().content_digest()
    assert found().is_sampled
    for place in (0, 100_000 // 64 * 3 + 5):  # in the first bytes, and in a slice
        data = bytearray(100_000)
        data[place] = 1
        path.write_bytes(data)
        assert found().content_digest() != before
