"""Lines of sums, `17+5=22`, as characters: each is to be told from those before it."""

# T characters of the longest line

import random

import torch
from torch import Tensor
from torch.utils.data import Dataset

CHARACTERS = "\n0123456789+="
LENGTH = 10  # T
IGNORED = -100  # what torch's cross-entropy leaves out


class Lines(Dataset[tuple[Tensor, Tensor]]):
    """(characters, next characters), int64 of shape (T,); after a line's end targets are -100."""

    def __init__(self, split: str, size: int = 480) -> None:
        pairs = [(a, b) for a in range(60) for b in range(60)]
        random.Random(5).shuffle(pairs)  # noqa: S311 - which sums are shown is no secret
        self._pairs = pairs[:size] if split == "train" else pairs[-size // 4 :]

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        a, b = self._pairs[position]
        line = torch.tensor([CHARACTERS.index(one) for one in f"\n{a}+{b}={a + b}\n"])
        input_T, target_T = torch.zeros(LENGTH, dtype=torch.long), torch.full((LENGTH,), IGNORED)
        input_T[: len(line) - 1], target_T[: len(line) - 1] = line[:-1], line[1:]
        return input_T, target_T
