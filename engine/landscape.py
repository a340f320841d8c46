"""The loss around a checkpoint, on a plane of two random directions. No files, no clock.

Li, Xu, Taylor, Studer & Goldstein 2018, "Visualizing the Loss Landscape of Neural Nets"
(arXiv:1712.09913): each direction is Gaussian, and each of its filters is scaled to the norm of
the model's own filter (section 4), so that pictures of different models can be compared. As
there, parameters of one dimension or none (biases, BatchNorm's scale and shift) stay where they
are, and BatchNorm uses the running statistics of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from epochal.data.errors import TargetError
from epochal.data.types import seed_64
from epochal.engine.loop.evaluate import ValidationResult

# P points of an axis; the first axis of losses_PP is the second direction, as rows of a picture

MIN_DIMENSIONS = 2
"""Parameters with fewer have no filters: their direction is zero."""


@dataclass(frozen=True)
class Landscape:
    """Losses on a square around a checkpoint, which is its centre.

    axis_P: float64, from -range to range, in units of the filters' norms. losses_PP: float64, NaN
    or infinite where the loss was. num_samples: that each loss is the mean of.
    """

    axis_P: npt.NDArray[np.float64]
    losses_PP: npt.NDArray[np.float64]
    num_samples: int

    @property
    def centre(self) -> float:
        """The loss of the checkpoint itself."""
        middle = len(self.axis_P) // 2
        return float(self.losses_PP[middle, middle])


def axis_of(points: int, extent: float) -> npt.NDArray[np.float64]:
    """`points` places from -extent to extent, evenly spaced, zero exactly in the middle."""
    if points < 3 or points % 2 == 0:  # noqa: PLR2004 - a middle, and something on each side
        message = f"{points} points have no middle; expected an odd number from 3"
        raise ValueError(message)
    half = points // 2
    return extent * (np.arange(points, dtype=np.float64) - half) / half


def direction(parameters: Mapping[str, Tensor], *, seed: int, number: int) -> dict[str, Tensor]:
    """A filter-normalised random direction: name → tensor like the parameter.

    Drawn on the CPU from (seed, number, name), so it is the same on every device, whatever other
    parameters there are. A filter is what one index of the first dimension holds: an output
    channel of a convolution, a row of a linear layer's matrix.
    """
    directions: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        if parameter.ndim < MIN_DIMENSIONS:
            directions[name] = torch.zeros_like(parameter)
            continue
        generator = torch.Generator().manual_seed(seed_64(seed, "landscape", number, name))
        kind = torch.complex128 if parameter.is_complex() else torch.float64
        drawn = torch.randn(parameter.shape, generator=generator, dtype=kind).to(parameter.device)
        rows = drawn.flatten(1)
        wanted = parameter.detach().to(kind).flatten(1).norm(dim=1, keepdim=True)
        scaled = rows * (wanted / rows.norm(dim=1, keepdim=True).clamp_min(1e-30))
        directions[name] = scaled.reshape(parameter.shape).to(parameter.dtype)
    return directions


def loss_landscape(
    model: nn.Module,
    measure: Callable[[], ValidationResult],
    *,
    seed: int,
    axis_P: npt.NDArray[np.float64],
    on_point: Callable[[], None] | None = None,
) -> Landscape:
    """The mean validation loss at each point; the model is as before at its end.

    measure: validates the model with the weights that it has then, over the same batches and from
    the same seed each time. seed: of the two directions. on_point: called after each point.

    Raises TargetError if no parameter has a filter.
    """
    parameters = {name: parameter.data for name, parameter in model.named_parameters()}
    if not any(parameter.ndim >= MIN_DIMENSIONS for parameter in parameters.values()):
        raise TargetError(
            f"model: {type(model).__name__} has no parameter of two dimensions or more, so there "
            "is no filter to move; a landscape needs a convolution or a linear layer"
        )
    first, second = (direction(parameters, seed=seed, number=number) for number in (0, 1))
    losses_PP = np.full((len(axis_P), len(axis_P)), np.nan)
    num_samples = 0
    with _movable(parameters) as move:
        for row, second_by in enumerate(axis_P.tolist()):
            for column, first_by in enumerate(axis_P.tolist()):
                move({name: first[name] * first_by + second[name] * second_by for name in first})
                result = measure()
                losses_PP[row, column] = result.values["loss"]
                num_samples = result.num_samples
                if on_point is not None:
                    on_point()
    return Landscape(axis_P=axis_P, losses_PP=losses_PP, num_samples=num_samples)


@contextmanager
def _movable(
    parameters: Mapping[str, Tensor],
) -> Iterator[Callable[[Mapping[str, Tensor]], None]]:
    """Gives a function that sets the parameters to their own values plus an offset."""
    own = {name: parameter.clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def move(offset: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            parameter.copy_(own[name] + offset[name])

    try:
        yield move
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(own[name])
