"""The source of Python's own library as a text, as the interpreter that trains has it."""

# T characters of a window

import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
OTHER = len(CHARACTERS)  # tabs, and what is no ASCII
VOCABULARY = OTHER + 1
HELD_OUT = 10  # every tenth file is for validation


def _files(split: str) -> list[Path]:
    """The modules at the library's top, by name: the same ones for one version of Python."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [
        path
        for place, path in enumerate(paths)
        if (place % HELD_OUT == 0) == (split == "validation")
    ]


def _tokens(text: str) -> Tensor:
    numbers = {one: number for number, one in enumerate(CHARACTERS)}
    return torch.tensor([numbers.get(one, OTHER) for one in text])


class Library(Dataset[tuple[Tensor, Tensor]]):
    """(characters, next characters), int64 of shape (T,), one window after the other.

    size: characters at most; whole files in the order of their names until it is reached.
    """

    def __init__(self, split: str, size: int, window: int) -> None:
        text = ""
        for path in _files(split):
            if len(text) >= size:
                break
            text += path.read_text(encoding="utf-8")
        self._window, self._tokens = window, _tokens(text[:size])

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self._window

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        start = position * self._window
        piece = self._tokens[start : start + self._window + 1]
        return piece[:-1], piece[1:]
