"""The samples of an update as a contact sheet, those of highest loss first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from epochal.data.errors import InputError
from epochal.tasks.out_file import whole_file
from epochal.tasks.report.contact_sheet import sheet_png, short
from epochal.tasks.run_data.sample_images import NoImage, open_images, read_images
from epochal.tasks.why.view import UpdateView

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset

MAX_PICTURES = 100


def draw_update(
    view: UpdateView,
    out: Path,
    *,
    notice: Callable[[str], None],
    data: OpenDataset | None = None,
) -> None:
    """Writes the samples as a picture to `out`, whole or not at all: items, not yet augmented.

    Up to 100 of them. data: the training data, if it is open already. Raises InputError if it has
    no images, the run was not named by its config's path or `out` cannot be written.
    """
    data = open_images(view.run, notice=notice) if data is None else data
    ranked = sorted(view.samples, key=lambda one: -(one["loss"] or 0.0))
    shown = ranked[:MAX_PICTURES]
    try:
        images = read_images(data, [sample["sample_id"] for sample in shown])
    except NoImage as error:
        raise InputError(f"--pictures: {error}; leave the option out") from error
    title = f"{view.run.plan.reference}: update {view.update}, epoch {view.body['epoch']}"
    if len(shown) < len(ranked):
        title += f", {len(shown)} of {len(ranked)} samples"
    with whole_file(out, option="--pictures") as file:
        file.write_bytes(sheet_png(images, [_caption(one) for one in shown], title=title))


def _caption(sample: Mapping[str, Any]) -> str:
    """Which it is, its class or label, and its loss."""
    name, path = sample.get("name"), sample.get("path")
    title = PurePath(name).name if name else str(sample["sample_id"])
    if not name and path:
        title += f" {PurePath(path).name}"
    label = sample.get("class", "" if sample["label"] is None else f"label {sample['label']}")
    loss = "loss –" if sample["loss"] is None else f"loss {sample['loss']:.3g}"
    return f"{short(title)}\n{short(str(label))}\n{loss}"
