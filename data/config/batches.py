"""Config of the batches: how often, at what resolution and how many at once. Pure pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from epochal.data.types import Frozen

MAX_SIDE = 1 << 16
SHUFFLE_BLOCKS = 16
"""Blocks of a window, where the config does not say: part of the order, so it never changes."""


def _as_pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_as_pair)]
"""Height and width in pixels; one number is both."""


class BatchesConfig(Frozen):
    """How the samples of an epoch become micro-batches: resolution, number and repetition.

    Multi-scale and variable-batch sampling are those of Mehta & Rastegari 2022 (MobileViT,
    arXiv:2110.02178), repeated augmentation that of Hoffer et al. 2020 (arXiv:1901.09335).
    """

    kind: Literal["fixed", "multi_scale", "variable_batch"] = Field(
        default="fixed",
        description="fixed: images as the data set gives them, `loader.batch_size` at once. "
        "multi_scale: each micro-batch at a resolution of its own. variable_batch: that, and with "
        "more samples where they are smaller",
    )
    size: Size | None = Field(
        default=None,
        description="height and width, pixels, at which a micro-batch of `variable_batch` has "
        "`loader.batch_size` samples; at others it has as many as have about as many pixels",
        examples=[[224, 224]],
    )
    sizes: tuple[Size, ...] = Field(
        default=(),
        description="the resolutions, each as height and width or as one number; one that is "
        "listed twice is drawn twice as often. Instead: `min_size` and `max_size`",
        examples=[[160, 192, 224]],
    )
    min_size: Size | None = Field(
        default=None, description="the smallest resolution, pixels", examples=[[128, 128]]
    )
    max_size: Size | None = Field(
        default=None, description="the largest resolution, pixels", examples=[[320, 320]]
    )
    num_sizes: int = Field(
        default=5,
        ge=1,
        le=1000,
        description="resolutions from `min_size` to `max_size`, in even steps; those that "
        "`divisible_by` makes alike count once",
    )
    divisible_by: int = Field(
        default=32,
        ge=1,
        le=MAX_SIDE,
        description="every height and width is a multiple of it, pixels; 32: what most networks "
        "for images shrink them by",
    )
    grow_at: tuple[int, ...] = Field(
        default=(),
        description="epochs, rising, from which on all resolutions are larger by `grow_by`, once "
        "more at each",
        examples=[[40, 80]],
    )
    grow_by: float = Field(
        default=0.25, gt=0, le=10, description="share by which resolutions grow, above 0"
    )
    repeats: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="times that a sample is trained on in an epoch, one after the other, each with "
        "its own augmentation",
    )
    truncate: bool = Field(
        default=False,
        description="with `repeats`: an epoch stays as long as without, on fewer samples",
    )
    class_balanced: bool = Field(
        default=False,
        description="each class equally often, in an epoch as long as without: samples of small "
        "classes come more than once, of large ones some not at all",
    )

    shuffle: Literal["auto", "global", "blocks"] = Field(
        default="auto",
        description="global: a permutation of all samples. blocks: of the blocks in which the data "
        "set stores them, and of the samples within windows of several blocks, so that storage is "
        "read in sequence. auto: blocks where the data set tells its blocks and `class_balanced` "
        "is off, else global",
    )
    shuffle_blocks: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="blocks of a window in which samples are shuffled, all of which are read at "
        f"about the same time; none: {SHUFFLE_BLOCKS}. More shuffle better",
    )
    by_length: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="micro-batches of a window of the shuffled order in which samples of like "
        "length are put into the same micro-batch, for less padding; the data set tells the "
        "lengths. none: by chance",
        examples=[100],
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_order()
        given = [name for name in ("sizes", "min_size", "max_size", "grow_at") if self._has(name)]
        if self.kind == "fixed":
            if given or self._has("size"):
                raise ValueError(
                    f"{[*given, 'size'][0]}: it acts with kind: multi_scale or variable_batch "
                    "alone; give one of them"
                )
            return self
        by_range = self.min_size is not None and self.max_size is not None
        if self._has("sizes") == by_range or self._has("sizes") != (
            self.min_size is None and self.max_size is None
        ):
            raise ValueError(
                f"kind: {self.kind} takes its resolutions either from `sizes` or from `min_size` "
                f"and `max_size`, found {', '.join(given) or 'none of them'}"
            )
        if (self.kind == "variable_batch") != self._has("size"):
            raise ValueError(
                "size: variable_batch needs it, the resolution at which a micro-batch has "
                "`loader.batch_size` samples; multi_scale takes none"
            )
        self._check_sizes()
        return self

    def _check_order(self) -> None:
        if self.shuffle == "blocks" and self.class_balanced:
            raise ValueError(
                "shuffle: blocks keeps samples in blocks together, class_balanced draws each class "
                "from everywhere; give shuffle: global or leave it out"
            )
        if self.shuffle == "global" and self.shuffle_blocks is not None:
            raise ValueError(
                "shuffle_blocks: it acts in the order by blocks; found shuffle: global"
            )
        if self.by_length is not None and self.kind == "variable_batch":
            raise ValueError(
                "by_length: it cuts micro-batches of one number of samples, kind: variable_batch "
                "of many; give one of them"
            )

    def _has(self, name: str) -> bool:
        return getattr(self, name) not in {None, ()}

    def _check_sizes(self) -> None:
        for size in (*self.sizes, self.min_size, self.max_size):
            if size is not None and any(side % self.divisible_by for side in size):
                raise ValueError(
                    f"sizes: {size[0]} x {size[1]} is no multiple of divisible_by: "
                    f"{self.divisible_by}; change one of them"
                )
        low, high = self.min_size, self.max_size
        if low is not None and high is not None and (low[0] > high[0] or low[1] > high[1]):
            raise ValueError(
                f"max_size: {high[0]} x {high[1]} is below min_size: {low[0]} x {low[1]}"
            )
        steps = self.grow_at
        if any(epoch < 1 for epoch in steps) or list(steps) != sorted(set(steps)):
            raise ValueError(f"grow_at: expected rising epochs from 1 on, found {list(steps)}")
        largest = max(max(size) for size in self.sizes_in(steps[-1] if steps else 0))
        if largest > MAX_SIDE:
            raise ValueError(f"grow_by: it leads to {largest} pixels; at most {MAX_SIDE} are taken")

    def goes_by_blocks(self, *, has_blocks: bool) -> bool:
        """Whether the order goes by blocks. has_blocks: whether the data set tells its blocks."""
        if self.shuffle == "auto":
            return has_blocks and not self.class_balanced
        return self.shuffle == "blocks"

    @property
    def window_blocks(self) -> int:
        """`shuffle_blocks`, or what it is where it is not given."""
        return self.shuffle_blocks or SHUFFLE_BLOCKS

    @property
    def varies_updates(self) -> bool:
        """Whether the number of updates differs from epoch to epoch."""
        return self.kind == "variable_batch"

    def epoch_length(self, num_samples: int) -> int:
        """Samples of an epoch that is made of that many, with their repetitions."""
        return num_samples if self.truncate else num_samples * self.repeats

    def sizes_in(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """The resolutions (height, width) of that epoch, smallest first; none if fixed."""
        if self.kind == "fixed":
            return ()
        growth = (1.0 + self.grow_by) ** sum(start <= epoch for start in self.grow_at)
        if self.sizes:
            sizes = [(float(height), float(width)) for height, width in self.sizes]
        else:
            sizes = self._even_steps()
        grown = [tuple(self._rounded(side * growth) for side in size) for size in sizes]
        pairs = sorted((height, width) for height, width in grown)
        return tuple(pairs if self.sizes else dict.fromkeys(pairs))

    def _even_steps(self) -> list[tuple[float, float]]:
        assert self.min_size is not None
        assert self.max_size is not None
        (low_h, low_w), (high_h, high_w) = self.min_size, self.max_size
        if self.num_sizes == 1:
            return [(float(high_h), float(high_w))]
        parts = [step / (self.num_sizes - 1) for step in range(self.num_sizes)]
        return [(low_h + (high_h - low_h) * t, low_w + (high_w - low_w) * t) for t in parts]

    def _rounded(self, side: float) -> int:
        return max(1, int(side / self.divisible_by + 0.5)) * self.divisible_by

    def batch_sizes_in(self, epoch: int, *, batch_size: int) -> tuple[int, ...]:
        """Samples of a micro-batch at each of `sizes_in`; batch_size: `loader.batch_size`."""
        sizes = self.sizes_in(epoch)
        if self.size is None:
            return (batch_size,) * len(sizes)
        pixels = batch_size * self.size[0] * self.size[1]
        return tuple(max(1, pixels // (height * width)) for height, width in sizes)

    def key_slice(self, epoch: int) -> dict[str, Any]:
        """What a key holds: the settings that change that epoch's numbers; empty if none does."""
        acting: dict[str, Any] = {}
        if self.kind != "fixed":
            acting |= {"kind": self.kind, "sizes": [list(size) for size in self.sizes_in(epoch)]}
        if self.size is not None:
            acting["size"] = list(self.size)
        if self.repeats > 1:
            acting |= {"repeats": self.repeats, "truncate": self.truncate}
        if self.class_balanced:
            acting["class_balanced"] = True
        if self.shuffle != "auto":
            acting["shuffle"] = self.shuffle
        if self.shuffle_blocks is not None:
            acting["shuffle_blocks"] = self.shuffle_blocks
        if self.by_length is not None:
            acting["by_length"] = self.by_length
        return acting
