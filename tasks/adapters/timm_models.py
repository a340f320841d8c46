"""A model of timm, with the normalisation that its weights were trained with."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from epochal.data.errors import TargetError, passes_through
from epochal.data.traces import in_one_line

logger = logging.getLogger(__name__)

# B batch, C channels, H height, W width


def timm(
    model: str,
    pretrained: bool = False,  # noqa: FBT001, FBT002 - an arg of a config
    normalize: bool = True,  # noqa: FBT001, FBT002 - likewise
    **more: Any,
) -> nn.Module:
    """`timm.create_model`, for `model:`; the run's images are floats from 0 to 1.

    model: its name, with or without a tag of weights. pretrained: begin with timm's weights, which
    are downloaded; the head is new where `num_classes` differs. normalize: images are brought to
    the mean and spread of the model's `pretrained_cfg` before its first layer; leave it off where
    `augment:` normalises. more: what `create_model` takes: num_classes, img_size, drop_path_rate.

    `optimizer.layer_decay` goes by the model's own layers. What timm's scripts leave without weight
    decay beside norms and biases is named before the start. Raises TargetError.
    """
    import timm as library

    try:
        made: nn.Module = library.create_model(model, pretrained=pretrained, **more)
    except BaseException as error:  # names and arguments may be wrong in many ways
        if passes_through(error):
            raise
        raise TargetError(
            f"model.args: timm's create_model({model!r}): {in_one_line(error)}"
        ) from error
    if normalize:
        known = getattr(made, "pretrained_cfg", None) or {}
        _normalise(made, known.get("mean"), known.get("std"))
    stated: set[str] = getattr(
        made, "no_weight_decay", set
    )()  # also of parts that this model lacks
    undecayed = [name for name, _ in made.named_parameters() if name in stated]
    if undecayed:
        logger.warning(
            "%s: timm leaves %s without weight decay: optimizer.groups: [%s]",
            model,
            ", ".join(undecayed),
            ", ".join(f"{{match: {name}, weight_decay: 0}}" for name in undecayed),
        )
    return made


def _normalise(model: nn.Module, mean: Any, std: Any) -> None:
    """Images are normalised as the model is called: its own names of weights stay."""
    if mean is None or std is None:
        return
    # Not in a state_dict: they belong to the config, as the model's sizes do.
    for name, values in (("epochal_mean", mean), ("epochal_std", std)):
        model.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
    model.register_forward_pre_hook(_normalised)


def _normalised(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    image_BCHW, *others = given
    if not isinstance(image_BCHW, Tensor) or not image_BCHW.is_floating_point():
        raise TargetError(
            "model: a model of timm that normalises takes floats from 0 to 1; found "
            f"{getattr(image_BCHW, 'dtype', type(image_BCHW).__name__)}: dtype: float32 in the "
            "data set, or `to_float` in `augment`"
        )
    mean, std = model.get_buffer("epochal_mean"), model.get_buffer("epochal_std")
    if image_BCHW.shape[1] != mean.shape[1]:
        mean, std = mean.mean(1, keepdim=True), std.mean(1, keepdim=True)  # grey, for one
    return ((image_BCHW - mean) / std, *others)
