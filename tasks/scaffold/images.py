"""A folder of images with a folder for each class: what is in it, and a project that learns it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from epochal.data.datasets.image_folder import ImageFolder, image_folder
from epochal.data.errors import DataError
from epochal.data.files.images import EXTENSIONS
from epochal.data.files.listing import Listing
from epochal.data.files.remembered import open_listing
from epochal.tasks.scaffold.project import (
    OwnModel,
    Project,
    last_part,
    listed,
    percent,
    project_name,
    render,
    seen_from,
)

LOOKED_AT = 32
"""Images that are decoded, evenly among all: for sizes and colours."""

FRACTION = 0.2
MAX_SIDE, STEP = 128, 32
"""Of images that differ: a side that a processor trains on in minutes, a multiple of STEP."""

SMALL_SIDE = 64  # images of one size up to here stay as they are
_TRAIN = ("train", "training")
_VALIDATION = ("validation", "valid", "val", "dev")
_TEST = ("test", "testing")
_MANY = 20_000
_SCARCE = 5


@dataclass(frozen=True)
class FoundImages:
    """What was seen. train, validation: their folders; the same one where it is to be split.

    counts: of the training folder, by class. size: height and width that all are made, or None
    where they have one already. channels: 1 where every image that was looked at is grey.
    """

    train: str
    validation: str
    classes: Sequence[str]
    counts: Sequence[int]
    num_validation: int
    size: tuple[int, int] | None
    sizes: str
    channels: int
    notes: Sequence[str]

    @property
    def is_split(self) -> bool:
        """Whether one folder gives both parts."""
        return self.train == self.validation


def look_at_images(path: str) -> FoundImages:
    """Lists the folder and decodes a few of its images. Raises DataError, naming what is wrong."""
    train, validation, notes = _parts(path)
    data = image_folder(train, dtype="uint8")
    counts = np.bincount(data.targets, minlength=len(data.classes)).tolist()
    num_validation = round(FRACTION * len(data))
    if validation != train:
        other = image_folder(validation, dtype="uint8")
        _check_same_classes(train, data.classes, validation, other.classes)
        num_validation = len(other)
    scarce = [name for name, count in zip(data.classes, counts, strict=True) if count < _SCARCE]
    if scarce:
        notes.append(f"fewer than {_SCARCE} images: {listed(scarce)}")
    if len(data.classes) == 1:
        notes.append(f"there is one class, {data.classes[0]!r}: nothing to tell apart")
    size, sizes, channels, bad = _look(data)
    notes.extend(bad)
    return FoundImages(
        train=train,
        validation=validation,
        classes=data.classes,
        counts=counts,
        num_validation=num_validation,
        size=size,
        sizes=sizes,
        channels=channels,
        notes=notes,
    )


def images_project(
    found: FoundImages, *, path: str, name: str | None, folder: Path, model: OwnModel | None
) -> Project:
    """The config, and a small residual network where there is no `model`."""
    name = project_name(name, instead=last_part(path))
    given: dict[str, Any] = {"path": seen_from(found.train, folder)}
    held_out: dict[str, Any] = {"path": seen_from(found.validation, folder)}
    more: Mapping[str, Any] = {
        **({"mode": "L"} if found.channels == 1 else {}),
        **({} if found.size is None else {"resize": list(found.size)}),
    }
    split: Mapping[str, Any] = {"fraction": FRACTION, "seed": 0} if found.is_split else {}
    train = {**given, **more, **({"split": {"part": "train", **split}} if split else {})}
    validation = {
        **held_out,
        **more,
        **({"split": {"part": "validation", **split}} if split else {}),
    }
    count = sum(found.counts)
    args = {
        "classes": len(found.classes),
        **({"channels": found.channels} if found.channels != 3 else {}),  # noqa: PLR2004 - RGB
        "width": 32,
        **({"stride": 2} if found.size is not None and max(found.size) > SMALL_SIDE else {}),
    }
    config = render(
        "images.yaml",
        name=name,
        classes=len(found.classes),
        count=count,
        path=seen_from(path, folder),
        model=OwnModel("model:SmallResNet", args) if model is None else model,
        own_model=model is not None,
        train=train,
        validation=validation,
        resized=found.size is not None,
        batch_size=32 if count < _MANY else 128,
        epochs=20 if count < _MANY else 10,
    )
    files = {f"{name}.yaml": config}
    if model is None:
        files["model.py"] = render("images.model.py")
    most = max(found.counts)
    per_class = f"{min(found.counts):,} to {most:,}" if len(set(found.counts)) > 1 else f"{most:,}"
    how = f"{percent(FRACTION)} of each class" if found.is_split else found.validation
    return Project(
        kind="images",
        name=name,
        files=files,
        found=[
            ("images", f"{count:,} in {found.train}"),
            ("classes", f"{len(found.classes)}: {listed(found.classes)}; {per_class} images each"),
            ("sizes", found.sizes),
            ("held out", f"{found.num_validation:,} images for validation: {how}"),
            ("baseline", f"always the commonest class: accuracy {most / count:.3f}"),
        ],
        notes=found.notes,
    )


def _parts(path: str) -> tuple[str, str, list[str]]:
    """The folders of training and validation: of `train/` and `val/` below it, or itself twice."""
    listing = open_listing(path, extensions=EXTENSIONS)
    top = {name.partition(b"/")[0].decode(errors="replace") for name in listing.names.folders}
    base = path.rstrip("/")
    named = {kind: _of(top, names) for kind, names in _KINDS.items()}
    if named["train"] is None:
        _check_class_folders(path, listing, top)
        return path, path, []
    train = f"{base}/{named['train']}"
    notes = []
    if named["validation"] is None and named["test"] is not None:
        notes.append(
            f"{base}/{named['test']} is left alone, for the very end: validation images are taken "
            f"out of {train}"
        )
    validation = train if named["validation"] is None else f"{base}/{named['validation']}"
    return train, validation, notes


_KINDS = {"train": _TRAIN, "validation": _VALIDATION, "test": _TEST}


def _of(top: set[str], names: Sequence[str]) -> str | None:
    lower = {one.lower(): one for one in top}
    return next((lower[name] for name in names if name in lower), None)


def _check_class_folders(path: str, listing: Listing, top: set[str]) -> None:
    if len(listing) and not top - {""}:
        raise DataError(
            f"{path}: {len(listing):,} images lie directly in it; expected a folder for each "
            f"class, {path.rstrip('/')}/cat/1.png, …. Where labels stand elsewhere, such as in "
            "a CSV, `epochal init --kind dataset` writes a data set of your own to fill in"
        )


def _check_same_classes(
    train: str, classes: Sequence[str], validation: str, others: Sequence[str]
) -> None:
    if list(classes) != list(others):
        only = sorted({*classes} ^ {*others})
        raise DataError(
            f"{train} and {validation} have other classes: {listed(only)} in one of the two alone; "
            "expected the same folders in both, since labels count their sorted names"
        )


def _look(data: ImageFolder) -> tuple[tuple[int, int] | None, str, int, list[str]]:
    """Size to be made, sizes as people read them, channels, and what could not be read."""
    positions = np.unique(np.linspace(0, len(data) - 1, LOOKED_AT).astype(int)).tolist()
    sides, grey, notes = [], True, []
    for position in positions:
        try:
            image_CHW, _ = data[position]
        except DataError as error:
            notes.append(f"{error}; `epochal data check` lists all such, once the config is there")
            continue
        sides.append(tuple(image_CHW.shape[1:]))
        grey = grey and bool((image_CHW == image_CHW[:1]).all())
    if not sides:
        raise DataError(notes[0])
    colour = "grey" if grey else "colour"
    low, high = min(sides), max(sides)
    if low == high and max(low) <= SMALL_SIDE:
        return None, f"{low[1]} × {low[0]}, {colour}", 1 if grey else 3, notes
    middle = statistics.median(min(one) for one in sides)
    side = int(min(MAX_SIDE, max(STEP, middle // STEP * STEP)))
    if low == high:
        sizes = f"{low[1]} × {low[0]}"
    else:
        widths, heights = [one[1] for one in sides], [one[0] for one in sides]
        sizes = f"{_range(widths)} wide, {_range(heights)} high"
    return (side, side), f"{sizes}, {colour}; made {side} × {side}", 1 if grey else 3, notes


def _range(sides: Sequence[int]) -> str:
    return f"{min(sides)} to {max(sides)}" if min(sides) != max(sides) else f"{min(sides)}"
