"""Built-in data sets: real images that need no download, and folders in the IDX format.

Both give a `TensorDataset` of `(image, label)`: float32 of shape (N, 1, H, W) in [0, 1], int64 of
shape (N,). Splits are fixed by a seed and stratified: each class has the same share in each part.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from epochal.data.errors import DataError
from epochal.data.hashing import hash_u64

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

# N samples, K chosen ones, C classes, H height, W width

DIGITS_WHITE = 16.0  # the highest value of a pixel there
IDX_SPLITS = {"train": "train", "test": "t10k", "validation": "t10k"}
MAX_IDX_BYTES = 1 << 31
_IDX_UINT8 = 0x08  # the type code in the third byte, http://yann.lecun.com/exdb/mnist
_IMAGE_DIMENSIONS = 3


def digits(split: str, seed: int = 0, validation_fraction: float = 0.3) -> TensorDataset:
    """1,797 handwritten digits of 8×8 pixels, in 10 classes, that come with scikit-learn.

    split: `train` or `validation`: disjoint, and together all digits, for one `seed` and
    `validation_fraction`, which lies in (0, 1). Raises DataError for any other value.
    """
    from sklearn.datasets import load_digits

    _check_split(split, ("train", "validation"), name="digits")
    _check_fraction(validation_fraction)
    loaded = load_digits()
    labels_N = np.asarray(loaded.target, dtype=np.int64)
    held_out_K = stratified(
        labels_N, count=math.ceil(len(labels_N) * validation_fraction), seed=seed
    )
    chosen_N = np.zeros(len(labels_N), dtype=bool)
    chosen_N[held_out_K] = True
    if split == "train":
        chosen_N = ~chosen_N
    images_K = np.asarray(loaded.images, dtype=np.float32)[chosen_N] / np.float32(DIGITS_WHITE)
    return _tensors(images_K, labels_N[chosen_N])


def idx_images(folder: str, split: str, limit: int | None = None, seed: int = 0) -> TensorDataset:
    """Grey images in IDX files, as MNIST and Fashion-MNIST come, gzipped or not.

    folder: holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same of `t10k`, each
    perhaps with `.gz`. split: `train`, or `test` (`validation` is the same files). limit: so many
    samples, stratified and fixed by `seed`, in the file's order; None: all.

    Raises DataError, naming the file, for one that is missing, damaged or of another form.
    """
    _check_split(split, tuple(IDX_SPLITS), name="idx_images")
    prefix = IDX_SPLITS[split]
    images_NHW = _read_idx(Path(folder), f"{prefix}-images-idx3-ubyte", _IMAGE_DIMENSIONS)
    labels_N = _read_idx(Path(folder), f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64)
    if len(images_NHW) != len(labels_N):
        raise DataError(
            f"idx_images: {folder} has {len(images_NHW)} images but {len(labels_N)} labels of "
            f"{split!r}; expected one label for each image: were files of two data sets mixed?"
        )
    if limit is not None:
        if not 1 <= limit <= len(labels_N):
            raise DataError(
                f"idx_images: limit: found {limit}; expected 1 to {len(labels_N)}, the samples of "
                f"{split!r}, or none for all"
            )
        rows_K = stratified(labels_N, count=limit, seed=seed)
        images_NHW, labels_N = images_NHW[rows_K], labels_N[rows_K]
    return _tensors(images_NHW.astype(np.float32) / np.float32(255), labels_N)


def stratified(labels_N: npt.NDArray[np.int64], *, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Rows of `count` samples in which each class has its share: int64 of shape (K,), rising.

    A class gets its share rounded down; what is missing goes to the largest remainders, of equal
    ones to the lower label. Which samples of a class: those with the lowest hash of (seed, row).
    """
    _, class_N, total_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    exact_C = total_C * (count / len(labels_N))
    wanted_C = np.floor(exact_C + 1e-9).astype(np.int64)
    missing = count - int(wanted_C.sum())
    remainder_C = exact_C - wanted_C
    wanted_C[np.lexsort((np.arange(len(total_C)), -remainder_C))[:missing]] += 1
    rows_N = np.arange(len(labels_N), dtype=np.int64)
    order_N = np.lexsort((rows_N, hash_u64(rows_N, "stratified", seed), class_N))
    rank_N = rows_N - np.searchsorted(class_N[order_N], class_N[order_N])
    chosen_K: npt.NDArray[np.int64] = np.sort(order_N[rank_N < wanted_C[class_N[order_N]]])
    return chosen_K


def _tensors(images_NHW: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]) -> TensorDataset:
    import torch
    from torch.utils.data import TensorDataset

    images_N1HW = torch.from_numpy(np.ascontiguousarray(images_NHW)).unsqueeze(1)
    return TensorDataset(images_N1HW, torch.from_numpy(np.ascontiguousarray(labels_N)))


def _check_split(split: str, known: Sequence[str], *, name: str) -> None:
    if split not in known:
        raise DataError(f"{name}: split: found {split!r}; expected one of {', '.join(known)}")


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise DataError(
            f"digits: validation_fraction: found {fraction!r}; expected a number between 0 and 1"
        )


def _read_idx(folder: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    path, zipped = folder / name, folder / f"{name}.gz"
    if not path.is_file():
        if not zipped.is_file():
            raise DataError(
                f"idx_images: {folder} has neither {name} nor {name}.gz; expected the folder that "
                "holds the four IDX files"
            )
        path = zipped
    try:
        with path.open("rb") as stream:
            plain = gzip.GzipFile(fileobj=stream) if path is zipped else stream
            return _parse_idx(cast("BinaryIO", plain), path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"idx_images: {path} cannot be read: {error}") from error


def _parse_idx(stream: BinaryIO, path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    magic = stream.read(4)
    expected = bytes([0, 0, _IDX_UINT8, dimensions])
    if magic != expected:
        raise DataError(
            f"idx_images: {path} begins with {magic.hex() or 'nothing'}; expected "
            f"{expected.hex()}: bytes in {dimensions} dimension{'s' if dimensions > 1 else ''}"
        )
    sizes = [int.from_bytes(stream.read(4), "big") for _ in range(dimensions)]
    total = math.prod(sizes)
    if not 0 < total <= MAX_IDX_BYTES:
        raise DataError(
            f"idx_images: {path} names the shape {sizes}; expected 1 to {MAX_IDX_BYTES} values"
        )
    data = stream.read(total + 1)
    if len(data) != total:
        length = f"{len(data)} bytes" if len(data) < total else "more bytes"
        raise DataError(
            f"idx_images: {path} has {length} after its header; expected the {total} of {sizes}"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(sizes)
