"""The images behind samples: items of the training data, read as the user's code gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epochal.data.errors import DataError, InputError, StateMismatch, passes_through
from epochal.data.hashing import hash_u64
from epochal.data.traces import in_one_line
from epochal.tasks.run_data.run_data import found_data, own_config
from epochal.tasks.runs.find_run import FoundRun

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from epochal.data.inspection.dataset import OpenDataset

# H height, W width, C channels: 1 or 3

EXPECTED = "a tensor or array of shape (H, W), (1, H, W), (3, H, W) or (H, W, 3), or a PIL image"
CHANNELS = (1, 3, 4)  # grey, colours, colours with a fourth channel, which is left out
FIRST_OF_BOTH = (1, 3)  # of shapes like (3, H, 3): channels are first, as torch has them
MIN_SIDE = 2
GREY_DIMENSIONS, COLOUR_DIMENSIONS = 2, 3  # (H, W); (C, H, W) or (H, W, C)


class NoImage(InputError):
    """A sample's input is no image; the text says what it is."""


def open_images(run: FoundRun, *, notice: Callable[[str], None]) -> OpenDataset:
    """The run's training data, built by the config whose path the run was named by.

    Raises InputError where it was named in another way, and what `open_data` raises.
    """
    return found_data(
        run,
        "train_data",
        config=own_config(run, "images come out of the data set, and that is"),
        notice=notice,
        changed="pictures are of what it is now",
    )


def positions_of(data: OpenDataset, sample_ids: Sequence[int]) -> npt.NDArray[np.int64]:
    """The position of each sample in the data set, int64. Raises StateMismatch for unknown ids."""
    import numpy as np

    ids_Q = np.asarray(sample_ids, dtype=np.int64)
    order_N = np.argsort(data.sample_ids_N, kind="stable")
    places_Q = np.searchsorted(data.sample_ids_N, ids_Q, sorter=order_N)
    positions_Q: npt.NDArray[np.int64] = order_N[np.minimum(places_Q, len(order_N) - 1)]
    strange_Q = ids_Q[data.sample_ids_N[positions_Q] != ids_Q]
    if len(strange_Q):
        raise StateMismatch(
            f"{data.field}: the tables name sample {strange_Q[0]}, and the data set has no such "
            "sample; was it changed after the run?"
        )
    return positions_Q


def read_images(data: OpenDataset, sample_ids: Sequence[int]) -> list[npt.NDArray[np.float32]]:
    """An image for each id: float32 of shape (H, W, 3), from 0 to 1, as `image_of` scales it.

    An item is what the data set's own `__getitem__` gives, augmentation and all, while the global
    generators are seeded by the sample's id: the same picture each time. They are kept.
    Raises NoImage, DataError for an item that cannot be read, StateMismatch for an unknown id.
    """
    import numpy as np

    from epochal.data.loading.items import kept_generators, seed_generators

    ids_Q = np.asarray(sample_ids, dtype=np.int64)
    positions_Q = positions_of(data, sample_ids)
    seeds = hash_u64(ids_Q, "picture").tolist()
    images = []
    with kept_generators():
        for sample_id, position, seed in zip(
            ids_Q.tolist(), positions_Q.tolist(), seeds, strict=True
        ):
            seed_generators(seed)
            try:
                item = data.looked[position]
            except BaseException as error:  # a user's data set may raise anything
                if passes_through(error):
                    raise
                raise DataError(
                    f"{data.field}: reading sample {sample_id} raised {in_one_line(error)}; mend "
                    "the data set"
                ) from error
            images.append(image_of(_input_of(item), name=f"{data.field}: sample {sample_id}"))
    return images


def image_of(value: Any, *, name: str) -> npt.NDArray[np.float32]:
    """`value` as float32 of shape (H, W, 3), its darkest value 0 and its brightest 1.

    All channels are scaled alike, so that hues stay. An image of a single value becomes grey, and
    values that are not finite black. Raises NoImage.
    """
    import numpy as np

    array = _array(value)
    if array is None or array.dtype.kind not in "biuf":
        raise NoImage(_no_image(name, value))
    image_HWC = _channels_last(array)
    if image_HWC is None or min(image_HWC.shape[:2]) < MIN_SIDE:
        raise NoImage(_no_image(name, value))
    image_HWC = image_HWC[:, :, :3].astype(np.float32)
    finite = np.isfinite(image_HWC)
    low, high = (
        (float(image_HWC[finite].min()), float(image_HWC[finite].max())) if finite.any() else (0, 0)
    )
    if high > low:
        # Divided first: the difference of two large numbers may be more than float32 holds.
        scale = max(abs(low), abs(high))
        low_1, high_1 = low / scale, high / scale
        image_HWC = (np.where(finite, image_HWC, low) / scale - low_1) / (high_1 - low_1)
    else:
        image_HWC = np.full_like(image_HWC, 0.5)
    image_HWC = np.clip(np.nan_to_num(image_HWC), 0.0, 1.0)
    return np.broadcast_to(image_HWC, (*image_HWC.shape[:2], 3)).astype(np.float32)


def _channels_last(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """`array` as (H, W, C), or None if its shape is not that of an image."""
    import numpy as np

    if array.ndim == GREY_DIMENSIONS:
        return array[:, :, None]
    if array.ndim != COLOUR_DIMENSIONS:
        return None
    first, last = array.shape[0], array.shape[2]
    if first in CHANNELS and (last not in CHANNELS or first in FIRST_OF_BOTH):
        return np.moveaxis(array, 0, -1)
    return array if last in CHANNELS else None


def _array(value: Any) -> npt.NDArray[Any] | None:
    import numpy as np

    if hasattr(value, "detach"):  # a tensor, of any device
        tensor = value.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        array: npt.NDArray[Any] = tensor.numpy()
        return array
    if hasattr(value, "getbands"):  # of PIL, which need not be installed
        return np.asarray(value.convert("RGB"))
    return value if isinstance(value, np.ndarray) else None


def _input_of(item: Any) -> Any:
    from epochal.engine.model.batches import input_name

    if isinstance(item, Mapping):
        name = input_name(item)
        return None if name is None else item[name]
    if isinstance(item, tuple | list) and item:
        return item[0]
    return item


def _no_image(name: str, value: Any) -> str:
    shape = getattr(value, "shape", None)
    shown = "nothing that is called `input` or `image`" if value is None else (
        f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
    )  # fmt: skip
    return f"{name}: its input is {shown}; for a picture expected {EXPECTED}"
