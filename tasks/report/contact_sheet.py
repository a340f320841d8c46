"""Samples as a contact sheet: their images in a grid, with id, label and score below each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.tasks.out_file import check_out, whole_file
from epochal.tasks.report.figures import LIGHT, Theme, as_png, drawable, new_figure
from epochal.tasks.report.samples import BY_LOSS, SHOWN_BY_DEFAULT, SampleView
from epochal.tasks.run_data.sample_images import NoImage, open_images, read_images
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure

    from epochal.data.inspection.dataset import OpenDataset

# H height, W width

MAX_PICTURES = 1000
MAX_LINE_CHARS = 22
"""Of a line below an image: as many as its width holds."""
MAX_COLUMNS = 10
CELL, TEXT = 1.08, 0.54  # inches
MARGIN, TITLE = 0.12, 0.42
PIXELS_SHOWN = 96
"""Sides up to which an image's pixels are to be seen as squares; larger ones are smoothed."""


def check_pictures(out: Path, *, count: int | None) -> None:
    """Raises InputError if the file cannot be written there: before data is read."""
    check_out(out, option="--pictures", ends=(".png",))
    if (count or SHOWN_BY_DEFAULT) > MAX_PICTURES:
        raise InputError(f"--pictures: asked for {count} samples; at most {MAX_PICTURES} are drawn")


def draw_samples(
    run: FoundRun,
    view: SampleView,
    out: Path,
    *,
    notice: Callable[[str], None],
    data: OpenDataset | None = None,
) -> None:
    """Writes the samples of `view` as a picture to `out`, whole or not at all; replaces a file.

    data: the training data, if it is open already. Raises InputError if it has no images or `out`
    cannot be written.
    """
    data = open_images(run, notice=notice) if data is None else data
    try:
        images = read_images(data, [sample["sample_id"] for sample in view.samples])
    except NoImage as error:
        raise InputError(f"--pictures: {error}; leave the option out") from error
    title = f"{run.plan.reference}: {view.order or 'samples by id'}, epoch {view.epoch}"
    with whole_file(out, option="--pictures") as file:
        file.write_bytes(sheet_png(images, captions(view), title=title))


def captions(view: SampleView) -> list[str]:
    """Three lines for each sample: which it is, label or class, and what it was sorted by.

    It is told by the last part of a text id, or by number and file.
    """
    column, shown_as = {
        "suspects": ("mean_margin", "AUM"),
        "easiest": ("p_true", "p_true"),
    }.get(view.order or "", ("loss", "loss"))
    if view.order in BY_LOSS and all(sample[column] is None for sample in view.samples):
        # The other one has made the order.
        column = shown_as = "p_true" if column == "loss" else "loss"
    return [
        f"{short(_title(sample))}\n{short(_label(sample))}\n"
        + (_forgotten(sample) if view.order == "forgotten" else _score(sample[column], shown_as))
        for sample in view.samples
    ]


def _title(sample: Mapping[str, Any]) -> str:
    file = sample.get("file")
    if (name := sample.get("name")) is not None:
        return PurePath(name).name or str(name)
    return f"{sample['sample_id']}" + ("" if file is None else f" {PurePath(file).name}")


def short(text: str) -> str:
    """As much of it as a line below an image holds."""
    return text if len(text) <= MAX_LINE_CHARS else f"{text[: MAX_LINE_CHARS - 1]}…"


def _label(sample: Mapping[str, Any]) -> str:
    label = sample["label"]
    if sample.get("class") is not None:
        return str(sample["class"])
    return "label not known" if label < 0 else f"label {label}"


def _forgotten(sample: Mapping[str, Any]) -> str:
    return "never right" if sample["never_right"] else f"forgotten {sample['forget_count']}×"


def _score(value: float | None, shown_as: str) -> str:
    return f"{shown_as} –" if value is None else f"{shown_as} {value:.3g}"


def sheet_png(
    images: Sequence[npt.NDArray[np.float32]],
    texts: Sequence[str],
    *,
    title: str = "",
    columns: int | None = None,
    theme: Theme = LIGHT,
) -> bytes:
    """`sheet_figure` as PNG."""
    return as_png(sheet_figure(images, texts, title=title, columns=columns, theme=theme))


def sheet_figure(
    images: Sequence[npt.NDArray[np.float32]],
    texts: Sequence[str],
    *,
    title: str = "",
    columns: int | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Images of shape (H, W, 3), row by row, each in a square cell in its own proportions.

    texts: what stands below each. columns: of the grid; None: as many as make it a little wider
    than high, at most ten.
    """
    columns = columns or min(MAX_COLUMNS, max(1, math.ceil(math.sqrt(1.6 * len(images)))))
    rows = max(1, math.ceil(len(images) / columns))
    top = TITLE if title else 0.0
    width = 2 * MARGIN + columns * CELL
    height = 2 * MARGIN + top + rows * (CELL + TEXT)
    figure = new_figure(theme, width=width, height=height)
    figure.set_layout_engine("none")
    panel = figure.add_axes((0, 0, 1, 1))
    panel.axis("off")
    inner = CELL * 0.94
    for number, (image_HW3, text) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(number, columns)
        x = MARGIN + (column + 0.5) * CELL
        y = height - MARGIN - top - row * (CELL + TEXT) - CELL / 2
        high, wide = (side / max(image_HW3.shape[:2]) * inner / 2 for side in image_HW3.shape[:2])
        small = max(image_HW3.shape[:2]) <= PIXELS_SHOWN
        panel.imshow(
            image_HW3, extent=(x - wide, x + wide, y - high, y + high), aspect="auto",
            interpolation="nearest" if small else "antialiased",
        )  # fmt: skip
        panel.text(
            x, y - CELL / 2 - 0.03, drawable(text), ha="center", va="top", fontsize=7,
            color=theme.ink, linespacing=1.15, parse_math=False,
        )  # fmt: skip
    if title:
        panel.text(
            width / 2, height - MARGIN - 0.05, drawable(title), ha="center", va="top", fontsize=9,
            color=theme.ink, parse_math=False,
        )  # fmt: skip
    panel.set(xlim=(0, width), ylim=(0, height))
    return figure
