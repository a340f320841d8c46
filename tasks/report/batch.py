"""A batch as training sees it: its samples as pictures with masks and boxes, or as a table.

Loads, augments, resizes and mixes as the epoch does; starts nothing and writes nothing but the
picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochal.data.augment.pictures import find_pictures
from epochal.data.config.augment import Normalize
from epochal.data.errors import DataError, InputError
from epochal.data.inspection.describe import HowToRead
from epochal.data.inspection.told import class_names, path_of
from epochal.data.loading.loader import train_batches
from epochal.engine.loop.mixing import MixedBatch, Mixer
from epochal.engine.loop.resize import resized
from epochal.engine.model.batches import input_name, target_of, to_device
from epochal.tasks.computing.augmented import augmented
from epochal.tasks.config.run import RunConfig
from epochal.tasks.planning.run_length import with_epochs
from epochal.tasks.report.contact_sheet import sheet_png, short
from epochal.tasks.run_data.reading import read_alone
from epochal.tasks.run_data.sample_images import NoImage, image_of
from epochal.tasks.stages.training_epoch import epoch_plan
from epochal.tasks.user_code.components import build_collate, prepare_numerics

if TYPE_CHECKING:
    from epochal.data.inspection.dataset import OpenDataset
    from epochal.data.types import Batch

# B samples, H and W of an image, K boxes, Q samples that are shown

MAX_PICTURES = 100
"""Samples of a batch that are drawn: more are too small to see."""
MAX_ROWS = 20
MAX_VALUES = 6  # of an input, in the table
MAX_TEXT_CHARS = 60
DRAWN_SIDE = 192
"""Pixels that smaller images are enlarged to about, so that outlines are thinner than pixels."""
HALF = 0.5
LEAST_SHARE = 0.005  # of a partner that is named
_COLOURS = (
    (0.90, 0.22, 0.21), (0.12, 0.47, 0.71), (0.20, 0.63, 0.17), (1.00, 0.75, 0.00),
    (0.60, 0.31, 0.64), (0.00, 0.70, 0.70), (0.94, 0.42, 0.70), (0.55, 0.34, 0.16),
)  # fmt: skip
"""Of the values of a mask from 1 on, and of boxes, in turn; 0 is left clear."""


@dataclass(frozen=True)
class ShownBatch:
    """A micro-batch of an epoch.

    samples: what `--json` says of each. num_batches: of the epoch. inputs: type and shape of what
    the model is given. png: of its images, None where it is none. table: heading and rows of texts,
    of the first samples.
    """

    samples: Sequence[Mapping[str, Any]]
    num_batches: int
    inputs: str
    png: bytes | None
    table: tuple[Sequence[str], Sequence[Sequence[str]]]


def show_batch(
    config: RunConfig,
    *,
    epoch: int,
    number: int,
    notice: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ShownBatch:
    """Micro-batch `number` of that epoch, both from 0.

    notice: is told of what training does and this does not. progress: of how many items were read
    of how many, where the data set does not tell what it holds. Raises InputError for an epoch or a
    batch that there is not, and what reading the data and changing the batch raise.
    """
    device = prepare_numerics(config)
    # Named, so that no item is read but those that are shown, and all where only they tell ids.
    how = HowToRead(version="shown", progress=progress)
    data = read_alone(config, "train_data", how=how)
    config = with_epochs(config, num_samples=data.info.num_samples)
    if epoch >= config.epochs:
        raise InputError(f"--epoch {epoch}: the run has epochs 0 to {config.epochs - 1}")
    if config.sampling.policy != "none" and epoch:
        notice(
            f"sampling.policy: {config.sampling.policy} chooses the samples of an epoch by what "
            "the run has observed; shown is the epoch with all of them"
        )
    plan = epoch_plan(config, data, epoch=epoch, table=None)
    if number >= plan.num_micro_steps:
        raise InputError(
            f"--batch {number}: epoch {epoch} has batches 0 to {plan.num_micro_steps - 1}"
        )
    batches = train_batches(
        data.looked,
        plan,
        sample_ids_N=data.sample_ids_N,
        seed=config.seed,
        epoch=epoch,
        start=number,
        collate=build_collate(config),
    )
    with closing(augmented(batches, config, "train", epoch=epoch, device=device)) as changed:
        batch = next(changed)
    seen = _as_trained_on(config, batch, epoch=epoch, device=device)
    positions = plan.slice(number).tolist()
    samples = _samples(data, batch, positions, seen)
    return ShownBatch(
        samples=samples,
        num_batches=plan.num_micro_steps,
        inputs=_form(_input_of(seen)),
        png=_picture(config, batch, seen, samples, title=_title(config, epoch, number, samples)),
        table=_table(seen, samples),
    )


def _as_trained_on(config: RunConfig, batch: Batch, *, epoch: int, device: torch.device) -> Any:
    data = to_device(batch.data, device)
    if batch.size_HW is not None:
        data = resized(data, batch.size_HW)
    if config.mixing is not None:
        mixer = Mixer(config.mixing, seed=config.seed, epoch=epoch)
        data = mixer(data, batch.sample_ids_B, batch.repeats_B)
    return to_device(data, torch.device("cpu"))


def _title(config: RunConfig, epoch: int, number: int, samples: Sequence[Mapping[str, Any]]) -> str:
    shown = "" if len(samples) <= MAX_PICTURES else f", the first {MAX_PICTURES} of {len(samples)}"
    return f"{config.name}: epoch {epoch}, batch {number}{shown}"


def _samples(
    data: OpenDataset, batch: Batch, positions: Sequence[int], seen: Any
) -> list[dict[str, Any]]:
    """Id, file, label and class of each sample, and of the one that it is mixed with."""
    target, partner = _target(seen), None
    names = _names(data, target)
    if isinstance(seen, MixedBatch) and bool((seen.share_B < 1).any()):
        partner = seen.partner_target
    samples = []
    for row, (sample_id, position) in enumerate(
        zip(batch.sample_ids_B.tolist(), positions, strict=True)
    ):
        label = _label(target, row)
        sample = {
            "sample_id": sample_id,
            "path": path_of(data.looked, position),
            "label": label,
            "class": _class(names, label),
            "repeat": 0 if batch.repeats_B is None else int(batch.repeats_B[row]),
        }
        if partner is not None:
            other = _label(partner, row)
            sample["mixed_with"] = {
                "label": other,
                "class": _class(names, other),
                "share": round(1 - float(seen.share_B[row]), 4),
            }
        samples.append(sample)
    return samples


def _target(seen: Any) -> Any:
    return seen.target if isinstance(seen, MixedBatch) else target_of(seen)


def _label(target: Any, row: int) -> int | float | None:
    """A number that is a sample's target, or None where that is something else."""
    if isinstance(target, Tensor) and target.ndim == 1:
        value: int | float = target[row].item()
        return value if not isinstance(value, float) or math.isfinite(value) else None
    return None


def _names(data: OpenDataset, target: Any) -> Sequence[str]:
    """The names of the classes; where no attribute tells the labels, of those of the batch."""
    names = data.info.class_names
    is_labels = isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()
    if names is None and data.labels_N is None and is_labels:
        labels_B = target.numpy().astype(np.int64)
        names = class_names(data.looked, count=data.info.num_samples, labels_N=labels_B)
    return names or ()


def _class(names: Sequence[str], label: Any) -> str | None:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else None


def _input_of(seen: Any) -> Any:
    if isinstance(seen, MixedBatch):
        return seen.input
    if isinstance(seen, Mapping):
        name = input_name(seen)
        return seen if name is None else seen[name]
    return seen[0] if isinstance(seen, tuple | list) and seen else seen


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value))}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else "one value"


def _picture(
    config: RunConfig,
    batch: Batch,
    seen: Any,
    samples: Sequence[Mapping[str, Any]],
    *,
    title: str,
) -> bytes | None:
    """The batch as a contact sheet; None where it holds no images."""
    parts = (seen.input, seen.target) if isinstance(seen, MixedBatch) else seen
    keep = () if config.augment is None else config.augment.keep
    try:
        pictures, _ = find_pictures(parts, count=batch.num_samples, keep=keep, mask_fill=0)
        images = _displayed(config, pictures.image[:MAX_PICTURES])
    except (DataError, NoImage):
        return None
    texts = [_caption(sample) for sample in samples[:MAX_PICTURES]]
    drawn = []
    for row, image in enumerate(images):
        # A mask with channels, such as one for each class, has more than one value at a pixel.
        own = [mask[row] for mask in pictures.masks]
        flat = [mask.reshape(mask.shape[-2:]) for mask in own if mask.numel() == image[..., 0].size]
        boxes = [box[row].reshape(-1, box.shape[-1]) for box in pictures.boxes]
        drawn.append(_annotated(image, flat, boxes))
        texts[row] += _contents(flat, boxes)
    return sheet_png(drawn, texts, title=title)


def _displayed(config: RunConfig, image_BCHW: Tensor) -> list[npt.NDArray[np.float32]]:
    """The images from 0 to 1, shape (H, W, 3): what normalised them is undone.

    Images that are not in 0 to 1 then are stretched from their darkest to their brightest value.
    """
    image = image_BCHW.float() / (1 if image_BCHW.is_floating_point() else 255)
    operations = () if config.augment is None else config.augment.train
    normalize = next((one for one in operations if isinstance(one, Normalize)), None)
    if normalize is not None:
        mean, std = (
            torch.tensor(numbers).reshape(1, -1, 1, 1)
            for numbers in (normalize.mean, normalize.std)
        )
        image = image * std + mean
    elif float(image.min()) < 0 or float(image.max()) > 1:
        return [image_of(one, name="batch") for one in image]
    if image.shape[1] not in {1, 3}:
        return [image_of(one, name="batch") for one in image]
    image = image.clamp(0, 1).expand(-1, 3, -1, -1)
    return list(image.permute(0, 2, 3, 1).numpy().astype(np.float32))


def _annotated(
    image_HW3: npt.NDArray[np.float32], masks: Sequence[Tensor], boxes: Sequence[Tensor]
) -> npt.NDArray[np.float32]:
    if not masks and not boxes:
        return image_HW3
    factor = max(1, DRAWN_SIDE // max(image_HW3.shape[:2]))
    image = image_HW3.repeat(factor, axis=0).repeat(factor, axis=1)
    for mask in masks:
        values_HW = mask.numpy().repeat(factor, axis=0).repeat(factor, axis=1)
        for place, value in enumerate(_values(mask)):
            marked = values_HW == value
            image[marked] = image[marked] * HALF + np.array(_colour(value, place)) * HALF
    width = max(1, round(max(image.shape[:2]) / 96))
    for box in boxes:
        corners_K4 = (box.float().numpy() * factor).round().astype(int)
        for place, (left, top, right, bottom) in enumerate(corners_K4.tolist()):
            if right > left and bottom > top:
                outline = image[top:bottom, left:right]
                colour = np.array(_COLOURS[place % len(_COLOURS)], dtype=np.float32)
                outline[:width], outline[-width:] = colour, colour
                outline[:, :width], outline[:, -width:] = colour, colour
    return image


def _values(mask: Tensor) -> list[float]:
    """The values that are marked: all but 0, at most as many as there are colours."""
    found = [value for value in torch.unique(mask).tolist() if value]
    return found[: len(_COLOURS)]


def _colour(value: float, place: int) -> tuple[float, float, float]:
    return _COLOURS[int(value - 1 if isinstance(value, int) else place) % len(_COLOURS)]


def _contents(masks: Sequence[Tensor], boxes: Sequence[Tensor]) -> str:
    parts = []
    if masks:
        values = [f"{value:g}" for mask in masks for value in _values(mask)]
        parts.append(f"mask {', '.join(values) or 'empty'}")
    if boxes:
        count = sum(int(((box[:, 2:] - box[:, :2]) > 0).all(dim=-1).sum()) for box in boxes)
        parts.append(f"{count} box{'es' * (count != 1)}")
    return "\n" + short(", ".join(parts)) if parts else ""


def _caption(sample: Mapping[str, Any]) -> str:
    """Up to two lines: id and file, label and what it is mixed with."""
    name = str(sample["sample_id"])
    if sample["path"] is not None:
        name += f" {PurePath(sample['path']).name}"
    if sample["repeat"]:
        name += f" ({sample['repeat'] + 1})"
    lines = [short(name)]
    if sample["label"] is not None:
        lines.append(short(_named(sample)))
    mixed = sample.get("mixed_with")
    if mixed is not None and mixed["share"] >= LEAST_SHARE:
        lines.append(short(f"+ {mixed['share']:.0%} {_named(mixed)}"))
    return "\n".join(lines)


def _named(sample: Mapping[str, Any]) -> str:
    if sample["class"] is not None:
        return str(sample["class"])
    label = sample["label"]
    return f"label {label}" if isinstance(label, int) else f"target {label:.4g}"


def _table(
    seen: Any, samples: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The first samples, with all parts of the batch in short."""
    parts = dict(_columns(seen))
    heading = ["sample", *parts]
    rows = [
        [
            " ".join(
                str(sample[name]) for name in ("sample_id", "path") if sample[name] is not None
            ),
            *(_cell(part, row) for part in parts.values()),
        ]
        for row, sample in enumerate(samples[:MAX_ROWS])
    ]
    return heading, rows


def _columns(seen: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(seen, MixedBatch):
        seen = {
            part: getattr(seen, part) for part in ("input", "target", "partner_target", "share_B")
        }
    if isinstance(seen, Mapping):
        named = [(str(key), part) for key, part in seen.items()]
    elif isinstance(seen, tuple) or (isinstance(seen, list) and seen and not name):
        usual = ("input", "target") if len(seen) == 2 and not name else ()  # noqa: PLR2004 - a pair
        named = [(usual[place] if usual else str(place), part) for place, part in enumerate(seen)]
    else:
        return [(name or "input", seen)]
    return [
        column for key, part in named for column in _columns(part, f"{name}.{key}" if name else key)
    ]


def _cell(part: Any, row: int) -> str:
    """One sample's part: a number, a text, or the first of many numbers and their shape."""
    try:
        value = part[row]
    except (TypeError, IndexError, KeyError):
        return str(part)[:MAX_TEXT_CHARS]
    if isinstance(value, Tensor):
        if not value.ndim:
            return f"{value.item():.4g}" if value.is_floating_point() else str(value.item())
        first = value.flatten()[:MAX_VALUES].tolist()
        numbers = " ".join(f"{one:.4g}" if isinstance(one, float) else str(one) for one in first)
        more = " …" if value.numel() > MAX_VALUES else ""
        return f"{numbers}{more} {tuple(value.shape)}"
    text = str(value)
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}…"
