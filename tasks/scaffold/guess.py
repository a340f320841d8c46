"""Which kind of project a path or a target asks for, by what lies there. Reads names, no data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from epochal.data.errors import DataError, InputError
from epochal.data.files.storage import local_path

Kind = Literal["images", "table", "text", "dataset", "lightning", "huggingface"]
KINDS: tuple[Kind, ...] = get_args(Kind)

WHAT: dict[Kind, str] = {
    "images": "a folder of images, one folder for each class",
    "table": "a table: CSV, TSV, Parquet, Arrow or Feather",
    "text": "text to be continued: .txt or .md files",
    "dataset": "a data set of your own, or a stub to fill in",
    "lightning": "a LightningModule that you have",
    "huggingface": "a model of Hugging Face, fine-tuned on a table of texts",
}

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_IMAGES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
_TABLES = {".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather"}
_TEXTS = {".txt", ".text", ".md"}
_PACKED = {".gz", ".bz2", ".xz"}
_LOOKED_AT = 20_000  # names in a folder
_MODEL = "config.json"


def is_target(source: str) -> bool:
    """Whether it is of the form `module:attribute`."""
    return _TARGET.fullmatch(source) is not None and not Path(source).exists()


def kind_of_path(source: str) -> Kind:
    """What lies at a path, of this machine or any address. Raises InputError, DataError."""
    path = local_path(source)
    if path is None:
        return _of_names([source], source) or _of_names(_listed(source), source) or _refuse(source)
    path = path.expanduser()
    if not path.exists():
        raise InputError(
            f"{source}: is not there; expected a folder of images, a table, texts, or "
            "module:attribute for code of yours (for a model of the Hugging Face hub: --kind "
            "huggingface)"
        )
    if path.is_file():
        return _of_names([path.name], source) or _refuse(source)
    if (path / _MODEL).is_file():
        return "huggingface"
    names = []
    for found in path.rglob("*"):
        names.append(found.name)
        if len(names) >= _LOOKED_AT:
            break
    return _of_names(names, source) or _refuse(source)


def _of_names(names: list[str], source: str) -> Kind | None:
    ends = [_ending(name) for name in names]
    counts: dict[Kind, int] = {
        "images": sum(end in _IMAGES for end in ends),
        "table": sum(end in _TABLES for end in ends),
        "text": sum(end in _TEXTS for end in ends),
    }
    # Beside images a table may lie that lists them, and a readme beside everything.
    if counts["images"] > 1 or (counts["images"] and not counts["table"] and not counts["text"]):
        if len(names) == 1:
            raise DataError(
                f"{source}: is one image; give the folder that holds a folder for each class"
            )
        return "images"
    if counts["table"]:
        return "table"
    return "text" if counts["text"] else None


def _ending(name: str) -> str:
    suffixes = [one.lower() for one in Path(name).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _listed(address: str) -> list[str]:
    from fsspec.core import url_to_fs

    from epochal.data.store.failures import cause_of, storage_errors

    try:
        system, root = url_to_fs(address)
        found: list[str] = []
        for _, _, files in system.walk(root):
            found.extend(files)
            if len(found) >= _LOOKED_AT:
                break
    except (ImportError, ValueError) as error:  # a missing package, or a wrong address
        raise DataError(f"{address}: {cause_of(error)}") from error
    except storage_errors() as error:
        raise DataError(f"{address}: cannot be listed: {cause_of(error)}") from error
    return found


def _refuse(source: str) -> Kind:
    raise InputError(
        f"{source}: holds no images, tables (.csv, .tsv, .parquet, .arrow, .feather) or texts "
        "(.txt, .md); for data of any other form `epochal init --kind dataset` writes a data set "
        "to fill in, and `epochal init module:Class` takes one that you have"
    )
