"""Made-up sentences of several lengths, padded to one: does a word come more than once?"""

# T words of a sentence, with the padding

import torch
from torch import Tensor
from torch.utils.data import Dataset

PADDING, START, FIRST_WORD, WORDS = 0, 1, 2, 30
LENGTH = 16  # T
FIRST_ID = {"train": 0, "validation": 1_000_000}


class Sentences(Dataset[dict[str, Tensor | int]]):
    """Dicts that transformers' models take, with `labels`; a sample's id is its own."""

    def __init__(self, split: str, size: int = 320) -> None:
        self._first_id = FIRST_ID[split]
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        sample_id = self._first_id + position
        own = torch.Generator().manual_seed(sample_id)
        length = int(torch.randint(4, LENGTH, (), generator=own))
        words = torch.randperm(WORDS, generator=own)[:length] + FIRST_WORD
        label = position % 2
        if label:
            words[-1] = words[0]
        input_ids_T = torch.full((LENGTH,), PADDING)
        input_ids_T[0], input_ids_T[1 : length + 1] = START, words
        return {
            "sample_id": sample_id,
            "input_ids": input_ids_T,
            "attention_mask": (input_ids_T != PADDING).long(),
            "labels": label,
        }
