"""Which Parquet files a path means: one, those of a folder, or those that a pattern finds."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from epochal.data.errors import DataError
from epochal.data.files.listing import list_files, stamp_of
from epochal.data.files.storage import Storage, local_path, refused

_EXTENSIONS = (".parquet",)
_GLOB = frozenset("*?[")


def find_parquet(path: str, name: str) -> tuple[str, list[tuple[str, int, int]]]:
    """The root, and (name, size, stamp) of each file, sorted by name. Raises DataError.

    path: a file, a folder or a pattern, of this machine or any fsspec URL. name: of the data set.
    """
    local = local_path(path)
    if local is not None:
        return _find_local(local, path, name)
    place, _, last = path.rpartition("/")
    if _GLOB & set(path):
        first = min(path.index(mark) for mark in _GLOB & set(path))
        root = path[:first].rpartition("/")[0]
        found = _asked(lambda: Storage(root).matching(path[len(root) + 1 :]), path)
    else:
        info = _asked(lambda: Storage(path).info(""), path, missing={"type": "directory"})
        if info["type"] == "directory":
            listing = list_files(path, extensions=_EXTENSIONS)
            sizes_N, stamps_N = listing.sizes_N.tolist(), listing.stamps_N.tolist()
            files = zip(map(listing.text, range(len(listing))), sizes_N, stamps_N, strict=True)
            return path, _checked_names(sorted(files), path, name)
        root, found = place, [(last, info)]
    entries = [(file, int(info["size"]), stamp_of(info)) for file, info in found]
    return root, _checked_names(sorted(entries), path, name)


def _asked(question: Any, path: str, *, missing: Any = None) -> Any:
    try:
        return question()
    except FileNotFoundError as error:
        if missing is None:
            raise refused(error, path, "Parquet files") from error
        return missing
    except Exception as error:
        raise refused(error, path, "Parquet files") from error


def _find_local(local: Path, path: str, name: str) -> tuple[str, list[tuple[str, int, int]]]:
    if _GLOB & set(str(local)) and not local.exists():
        first = min(str(local).index(mark) for mark in _GLOB & set(str(local)))
        root = Path(str(local)[:first].rpartition("/")[0] or "/")
        names = sorted(glob.glob(str(local), recursive=True))  # noqa: PTH207 - of a whole path
        files = [Path(one) for one in names if Path(one).is_file()]
    elif local.is_dir():
        root = local
        listing = list_files(str(local), extensions=_EXTENSIONS)
        files = [local / listing.text(position) for position in range(len(listing))]
    elif local.is_file():
        root, files = local.parent, [local]
    else:
        raise DataError(
            f"{name}: {path}: found nothing there; expected a Parquet file, a folder of them, or a "
            "pattern such as ./data/train-*.parquet; correct `path`"
        )
    found = []
    for file in files:
        status = file.stat()
        found.append((str(file.relative_to(root)), status.st_size, status.st_mtime_ns))
    return str(root), _checked_names(sorted(found), path, name)


def _checked_names(
    found: list[tuple[str, int, int]], path: str, name: str
) -> list[tuple[str, int, int]]:
    """Raises DataError where there are none, or those of several parts of a data set."""
    if not found:
        raise DataError(
            f"{name}: {path}: found no file that ends in .parquet; expected a Parquet file, a "
            "folder of them, or a pattern such as ./data/train-*.parquet"
        )
    parts = sorted({part for file, _, _ in found if (part := _part_of(file)) is not None})
    if len(parts) > 1:
        raise DataError(
            f"{name}: {path}: found files of the parts {', '.join(parts)}, which would be one data "
            f"set; expected those of one: path: {path.rstrip('/*')}/{parts[0]}*.parquet"
        )
    return found


_PARTS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation",
          "val": "validation", "dev": "validation", "test": "test"}  # fmt: skip


def _part_of(file: str) -> str | None:
    """The part whose name the file's begins with, as the hub has it: `train-00000-of-00005`."""
    stem = file.rpartition("/")[2].partition(".")[0]
    return _PARTS.get(stem.replace("_", "-").partition("-")[0].lower())
