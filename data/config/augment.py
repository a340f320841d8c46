"""Config of augmentation: what is done to a batch of images before the model sees it.

One class for each kind of operation; pure pydantic, no torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from epochal.data.config.batches import MAX_SIDE, Size
from epochal.data.config.dataset import PartName
from epochal.data.types import Frozen

Probability = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
MAX_OPERATIONS = 64


def _is_range(low: float, high: float, *, name: str) -> None:
    if low > high:
        raise ValueError(f"{name}: [{low:g}, {high:g}] runs down; give the smaller number first")


class Flip(Frozen):
    """Mirrors an image, left to right."""

    kind: Literal["flip"]
    probability: Probability = Field(default=0.5, description="share of the samples")
    vertical: bool = Field(default=False, description="top to bottom instead")


class Crop(Frozen):
    """Cuts out a piece at a random place."""

    kind: Literal["crop"]
    size: Size | None = Field(
        default=None,
        description="height and width of the piece, pixels, or one number for both; none: the "
        "image's own, so that padding alone moves it",
        examples=[32, [32, 48]],
    )
    padding: int = Field(
        default=0, ge=0, le=MAX_SIDE, description="pixels that are first added at each side"
    )
    border: Literal["fill", "edge", "reflect"] = Field(
        default="fill",
        description="what is added: `fill`; edge: the outermost pixels again; reflect: the image "
        "mirrored, without its outermost pixels",
    )
    fill: float = Field(default=0.0, description="value of added pixels; of uint8 1 is 255")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.size is None and not self.padding:
            raise ValueError("neither size nor padding is given; give one, such as padding: 4")
        return self


class ResizedCrop(Frozen):
    """Cuts out a piece of random area and proportions, and resizes it (Inception's crop)."""

    kind: Literal["resized_crop"]
    size: Size = Field(
        description="height and width of the result, pixels, or one number for both",
        examples=[224],
    )
    area: tuple[Positive, Positive] = Field(
        default=(0.08, 1.0), description="smallest and largest share of the image's area"
    )
    ratio: tuple[Positive, Positive] = Field(
        default=(0.75, 4 / 3), description="smallest and largest width divided by height"
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        _is_range(*self.area, name="area")
        _is_range(*self.ratio, name="ratio")
        if self.area[1] > 1:
            raise ValueError(f"area: found {self.area[1]:g}; a piece has at most 1, the whole")
        return self


class Resize(Frozen):
    """Resizes the whole image, bilinear with antialiasing."""

    kind: Literal["resize"]
    size: Size | None = Field(
        default=None,
        description="height and width, pixels, or one number for both",
        examples=[[256, 256]],
    )
    shorter: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SIDE,
        description="length of the shorter side, pixels; proportions stay. Instead of `size`",
        examples=[256],
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.size is None) == (self.shorter is None):
            raise ValueError("give either size, or shorter")
        return self


class CenterCrop(Frozen):
    """Cuts out the middle."""

    kind: Literal["center_crop"]
    size: Size = Field(
        description="height and width of the piece, pixels, or one number for both",
        examples=[224],
    )


class Affine(Frozen):
    """Turns, moves and scales an image around its middle, bilinear."""

    kind: Literal["affine"]
    degrees: float = Field(
        default=0.0, ge=0, le=180, description="largest turn, either way, degrees"
    )
    translate: Strength = Field(
        default=0.0, description="largest move either way, as a share of each side"
    )
    scale: tuple[Positive, Positive] = Field(
        default=(1.0, 1.0), description="smallest and largest factor of size"
    )
    probability: Probability = Field(default=1.0, description="share of the samples")
    fill: float = Field(
        default=0.0, description="value where the image does not reach; of uint8 1 is 255"
    )

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        _is_range(*self.scale, name="scale")
        if not self.degrees and not self.translate and self.scale == (1.0, 1.0):
            raise ValueError("nothing is changed; give degrees, translate or scale")
        return self


class Color(Frozen):
    """Changes brightness, then contrast, then saturation; of values from 0 to 1."""

    kind: Literal["color"]
    brightness: Strength = Field(
        default=0.0, description="b: values are multiplied by a number from 1 - b to 1 + b"
    )
    contrast: Strength = Field(
        default=0.0, description="c: the distance from the mean grey is, by 1 - c to 1 + c"
    )
    saturation: Strength = Field(
        default=0.0, description="s: the distance from the own grey is, by 1 - s to 1 + s"
    )
    probability: Probability = Field(default=1.0, description="share of the samples")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.brightness or self.contrast or self.saturation):
            raise ValueError("nothing is changed; give brightness, contrast or saturation")
        return self


class Grayscale(Frozen):
    """Makes an image grey; it keeps its channels."""

    kind: Literal["grayscale"]
    probability: Probability = Field(default=0.1, description="share of the samples")


class Erase(Frozen):
    """Overwrites a rectangle (random erasing, arXiv:1708.04896)."""

    kind: Literal["erase"]
    probability: Probability = Field(default=0.25, description="share of the samples")
    area: tuple[Positive, Positive] = Field(
        default=(0.02, 0.33), description="smallest and largest share of the image's area"
    )
    ratio: tuple[Positive, Positive] = Field(
        default=(0.3, 3.3), description="smallest and largest width divided by height"
    )
    fill: float = Field(default=0.0, description="value of the rectangle; of uint8 1 is 255")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        _is_range(*self.area, name="area")
        _is_range(*self.ratio, name="ratio")
        if self.area[1] > 1:
            raise ValueError(f"area: found {self.area[1]:g}; a rectangle has at most 1, the whole")
        return self


class Noise(Frozen):
    """Adds Gaussian noise to each value."""

    kind: Literal["noise"]
    std: float = Field(
        default=0.05, gt=0, description="standard deviation, in the unit that values have then"
    )
    probability: Probability = Field(default=1.0, description="share of the samples")


class ToFloat(Frozen):
    """Makes float32 from 0 to 1 of uint8; leaves floats as they are."""

    kind: Literal["to_float"]


class Normalize(Frozen):
    """Subtracts a mean and divides by a deviation, for each channel; uint8 becomes 0 to 1 first."""

    kind: Literal["normalize"]
    mean: tuple[float, ...] = Field(
        min_length=1,
        description="for each channel, or one number for all, of values from 0 to 1",
        examples=[[0.485, 0.456, 0.406]],
    )
    std: tuple[Positive, ...] = Field(
        min_length=1,
        description="for each channel, or one number for all",
        examples=[[0.229, 0.224, 0.225]],
    )

    @model_validator(mode="after")
    def _same_channels(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} numbers, std {len(self.std)}; give one for each channel"
            )
        return self


Fixed = Resize | CenterCrop | ToFloat | Normalize
"""Operations that draw nothing: what validation may do."""
Operation = (
    Flip
    | Crop
    | ResizedCrop
    | Affine
    | Color
    | Grayscale
    | Erase
    | Noise
    | Resize
    | CenterCrop
    | ToFloat
    | Normalize
)
Part = Literal["train", "validation"]
OF_UNIT_VALUES = (Color, Grayscale)
"""Operations on values from 0 to 1."""


def _gives_form(operation: Operation) -> bool:
    """Whether what comes out has another size or type than what went in."""
    if isinstance(operation, Crop):
        return operation.size is not None
    return isinstance(operation, Resize | CenterCrop | ToFloat | Normalize | ResizedCrop)


class AugmentConfig(Frozen):
    """What is done to batches of images, on the device that trains: of training and of validation.

    Every number that is drawn is a hash of (seed, epoch, sample id, how often the sample came
    before in the epoch): the same in any batch, process and after any resume.
    """

    train: tuple[Annotated[Operation, Field(discriminator="kind")], ...] = Field(
        default=(),
        max_length=MAX_OPERATIONS,
        description="operations on training batches, in this order, each a mapping with `kind`",
        examples=[[{"kind": "flip"}, {"kind": "crop", "padding": 4}, {"kind": "to_float"}]],
    )
    validation: tuple[Annotated[Fixed, Field(discriminator="kind")], ...] | None = Field(
        default=None,
        max_length=MAX_OPERATIONS,
        description="operations on batches that are not trained on (validation, scoring); they "
        "draw nothing. Needed where `train` changes size or type; [] is none",
        examples=[[{"kind": "to_float"}]],
    )
    keep: tuple[PartName, ...] = Field(
        default=(),
        description="parts of a batch, by key or place, that are left as they are although they "
        "look like masks or boxes",
        examples=[["depth"]],
    )
    mask_fill: int = Field(
        default=0,
        description="value that masks get where an image is padded or turned away from; the "
        "loss's `ignore_index` where it has one",
        examples=[255],
    )

    @model_validator(mode="before")
    @classmethod
    def _says_of_what(cls, data: Any) -> Any:
        if isinstance(data, list | tuple):
            message = "found a list; expected {train: [...], validation: [...]}"
            raise ValueError(message)  # noqa: TRY004 - what pydantic expects of a validator
        return data

    @field_validator("train", "validation")
    @classmethod
    def _in_order(cls, operations: tuple[Operation, ...] | None) -> tuple[Operation, ...] | None:
        normalized = False
        for place, operation in enumerate(operations or ()):
            if normalized and isinstance(operation, (*OF_UNIT_VALUES, Normalize)):
                raise ValueError(
                    f"[{place}] {operation.kind} is of values from 0 to 1, and normalize comes "
                    "before it; put it first"
                )
            normalized = normalized or isinstance(operation, Normalize)
        return operations

    @model_validator(mode="after")
    def _validation_is_said(self) -> Self:
        formed = next((one.kind for one in self.train if _gives_form(one)), None)
        if self.validation is None and formed is not None:
            raise ValueError(
                f"train has {formed}, which changes what the model is given, and validation is not "
                "said; give it what makes the same form of its images (such as normalize), or []"
            )
        return self

    def operations(self, part: Part) -> tuple[Operation, ...]:
        """Those of training, or those of validation and scoring."""
        return self.train if part == "train" else self.validation or ()

    def key_slice(self, part: Part) -> dict[str, Any]:
        """What acts on the numbers of a stage; nothing where nothing is done."""
        operations = self.operations(part)
        if not operations:
            return {}
        given = [one.model_dump(mode="json", exclude_defaults=True) for one in operations]
        more = {
            "keep": list(self.keep),
            "mask_fill": self.mask_fill,
        }
        return {"operations": given, **{name: one for name, one in more.items() if one}}
