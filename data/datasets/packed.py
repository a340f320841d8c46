"""Packed sequences: documents of many lengths side by side in windows of one length.

Which documents a window holds is a function of their lengths alone, so nothing is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from epochal.data.datasets.hugging_face import adapted
from epochal.data.errors import DataError
from epochal.data.hashing import digest

# D documents, P pieces of them, N windows, T tokens of a window

IGNORED = -100
"""The label that losses leave out, as those of torch and transformers do by default."""
PADDING = -1  # the document of tokens that only fill a window
_INPUTS = ("input_ids", "input")
_LABELS = ("labels", "target")
_LONG = ("split", "truncate", "refuse")

Ints = npt.NDArray[np.int64]


def packed(
    data: Any,
    window: int,
    *,
    order: Literal["best_fit", "as_is"] = "best_fit",
    long: Literal["split", "truncate", "refuse"] = "split",
    labels: Literal["next", "same"] = "next",
    pad: int = 0,
) -> Packed:
    """Windows of T tokens out of the items of `data`: a set with `lengths`, in the config a target.

    Items of `data`: `(input, target)`, where the target is one token ahead, as `text` gives them
    without a window; or dicts with `input_ids` and perhaps `labels` of the same tokens, as in
    Hugging Face's sets. An item here: a dict of int64 of shape (T,): `input_ids`, filled up with
    `pad`; `labels`, -100 where nothing is to be learned; `position_ids`, from 0 in each document;
    `document_ids`, from 0 in each window, -1 where it is filled up: attention is for tokens of
    equal ids.

    order: best_fit: longest first, each into the fullest window that it fits in (best fit
    decreasing: some 1 % is filled up); as_is: one after the other, a new window where one does not
    fit. long: a document of more than `window` tokens is split into several, or its end left out,
    or refused. labels: next: those of the next token, as for a loss of (logits, labels); same:
    those of the token itself, for models that shift them, as those of transformers do. Documents
    have no label over their border.

    Raises DataError for a set without `lengths`, or without tokens.
    """
    if type(window) is not int or window < 1:
        raise DataError(f"packed: window: found {window!r}; expected a number of tokens from 1 on")
    for name, value, known in (
        ("order", order, ("best_fit", "as_is")),
        ("long", long, _LONG),
        ("labels", labels, ("next", "same")),
    ):
        if value not in known:
            raise DataError(f"packed: {name}: found {value!r}; expected {' or '.join(known)}")
    data = adapted(data, name="packed: data")
    lengths_D = _lengths(data)
    if long == "refuse" and (lengths_D > window).any():
        row = int(np.argmax(lengths_D > window))
        raise DataError(
            f"packed: document {row}{_named(data, row)} has {lengths_D[row]} tokens; expected at "
            f"most {window}; state long: split or truncate"
        )
    if long == "truncate":
        lengths_D = np.minimum(lengths_D, window)
    document_P, start_P, length_P = pieces(lengths_D, window)
    if not len(length_P):
        raise DataError("packed: all documents are empty; expected tokens")
    window_P = best_fit(length_P, window) if order == "best_fit" else as_is(length_P, window)
    by_window_P = np.argsort(window_P, kind="stable")
    return Packed(
        data,
        np.stack([document_P, start_P, length_P])[:, by_window_P],
        np.append(0, np.cumsum(np.bincount(window_P))),
        window=window,
        labels=labels,
        pad=pad,
        says=[window, order, long, labels, pad],
    )


def pieces(lengths_D: Ints, window: int) -> tuple[Ints, Ints, Ints]:
    """Document, first token and length of each piece of at most `window` tokens, in order."""
    count_D = -(-lengths_D // window)
    document_P = np.repeat(np.arange(len(lengths_D), dtype=np.int64), count_D)
    number_P = np.arange(len(document_P)) - np.repeat(np.cumsum(count_D) - count_D, count_D)
    start_P = number_P * window
    return document_P, start_P, np.minimum(lengths_D[document_P] - start_P, window)


def as_is(length_P: Ints, window: int) -> Ints:
    """The window of each piece, in order: int64 of shape (P,)."""
    end_P = np.cumsum(length_P)
    window_P = np.empty(len(length_P), dtype=np.int64)
    first, number = 0, 0
    while first < len(length_P):
        begin = int(end_P[first] - length_P[first])
        end = int(np.searchsorted(end_P, begin + window, side="right"))
        window_P[first:end] = number
        first, number = end, number + 1
    return window_P


def best_fit(length_P: Ints, window: int) -> Ints:
    """The window of each piece by best fit decreasing, of equal ones the first: int64 (P,).

    Johnson 1973; for text: Ding et al. 2024 (arXiv:2404.10830). Windows are numbered as they are
    opened. Some 1 µs for each piece.
    """
    window_P = np.empty(len(length_P), dtype=np.int64)
    order_P = np.argsort(-length_P, kind="stable")
    # Windows by what is left in them, and these amounts as the bits of a number, so that the
    # smallest that is enough is its lowest bit from there on.
    open_by_left: dict[int, list[int]] = {}
    lefts, opened = 0, 0
    chosen: list[int] = []
    for length in length_P[order_P].tolist():
        enough = lefts >> length
        if enough:
            left = length + (enough & -enough).bit_length() - 1
            held = open_by_left[left]
            number = held.pop()
            if not held:
                lefts ^= 1 << left
        else:
            left, number = window, opened
            opened += 1
        chosen.append(number)
        left -= length
        if left:
            held = open_by_left.setdefault(left, [])
            if not held:
                lefts |= 1 << left
            held.append(number)
    window_P[order_P] = chosen
    return window_P


class Packed:
    """Windows of packed documents; made by `packed`."""

    def __init__(
        self,
        data: Any,
        pieces_3P: Ints,
        first_N1: Ints,
        *,
        window: int,
        labels: str,
        pad: int,
        says: Sequence[Any],
    ) -> None:
        """pieces_3P: document, first token, length, by window. first_N1: where windows begin."""
        self._data = data
        self._pieces_3P = pieces_3P
        self._first_N1 = first_N1
        self._window = window
        self._ahead = labels == "next"
        self._pad = pad
        self._says = says
        self.lengths: Ints = np.add.reduceat(pieces_3P[2], first_N1[:-1])

    def __len__(self) -> int:
        return len(self._first_N1) - 1

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """As items, in order; the documents of all are read at once where the set can."""
        places = [range(len(self))[position] for position in positions]
        pieces = [self._pieces_3P[:, slice(*self._first_N1[one : one + 2])] for one in places]
        wanted = np.unique(np.concatenate([one[0] for one in pieces])).tolist()
        read = getattr(self._data, "__getitems__", None)
        items = read(wanted) if callable(read) else [self._data[row] for row in wanted]
        documents = {
            row: _document(item, row, ahead=self._ahead)
            for row, item in zip(wanted, items, strict=True)
        }
        return [self._packed(one, documents) for one in pieces]

    def _packed(
        self, pieces_3P: Ints, documents: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        item = {
            "input_ids": torch.full((self._window,), self._pad, dtype=torch.int64),
            "labels": torch.full((self._window,), IGNORED, dtype=torch.int64),
            "position_ids": torch.zeros(self._window, dtype=torch.int64),
            "document_ids": torch.full((self._window,), PADDING, dtype=torch.int64),
        }
        begin = 0
        for number, (row, start, length) in enumerate(pieces_3P.T.tolist()):
            tokens, labels = documents[row]
            if len(tokens) < start + length:
                raise DataError(
                    f"packed: document {row}{_named(self._data, row)} has {len(tokens)} tokens, "
                    f"but `lengths` says {start + length} at least; expected its length"
                )
            end = begin + length
            item["input_ids"][begin:end] = tokens[start : start + length]
            item["labels"][begin:end] = labels[start : start + length]
            if not self._ahead:  # what is before it is no part of the window, or another document
                item["labels"][begin] = IGNORED
            item["position_ids"][begin:end] = torch.arange(length)
            item["document_ids"][begin:end] = number
            begin = end
        return item

    def path_of(self, position: int) -> str:
        """The documents of the window."""
        rows = self._pieces_3P[0, self._first_N1[position] : self._first_N1[position + 1]].tolist()
        of = getattr(self._data, "path_of", None)
        return ", ".join(str(of(row)) if callable(of) else f"document {row}" for row in rows)

    def __getattr__(self, name: str) -> Any:
        """`fingerprint`, `stamp`, `unread` and `thread_safe` are there where `data` has them."""
        if name not in {"fingerprint", "stamp", "unread", "thread_safe"}:
            raise AttributeError(name)
        value = getattr(self._data, name)
        if name != "fingerprint":
            return value
        return lambda: digest("packed", [self._says, value()])


def _lengths(data: Any) -> Ints:
    given = getattr(data, "lengths", None)
    if given is None:
        raise DataError(
            f"packed: data: a {type(data).__qualname__} has no `lengths`; expected a set that "
            "knows the tokens of each item: text with window: null, hugging_face, or one of your "
            "own with an attribute `lengths`, whole numbers of shape (N,)"
        )
    lengths_D = np.asarray(given)
    if lengths_D.shape != (len(data),) or lengths_D.dtype.kind not in "iu":
        raise DataError(
            f"packed: data: `lengths` are {lengths_D.dtype} of shape {lengths_D.shape}; expected "
            f"whole numbers of shape ({len(data)},)"
        )
    return lengths_D.astype(np.int64)


def _named(data: Any, row: int) -> str:
    of = getattr(data, "path_of", None)
    return f" ({of(row)})" if callable(of) else ""


def _document(item: Any, row: int, *, ahead: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels of a document: those of the next tokens, or of the tokens themselves."""
    if isinstance(item, tuple | list) and len(item) == 2:  # noqa: PLR2004 - a pair
        tokens, labels = (_line(one, row) for one in item)
        _check_equal(tokens, labels, row)
        return tokens, labels if ahead else _shifted(labels, by=1)
    if not isinstance(item, Mapping) or (name := _first(_INPUTS, item)) is None:
        raise DataError(
            f"packed: document {row} is a {type(item).__name__}; expected (input, target), or a "
            "dict with input_ids"
        )
    tokens = _line(item[name], row)
    given = _first(_LABELS, item)
    labels = tokens if given is None else _line(item[given], row)
    _check_equal(tokens, labels, row)
    return tokens, _shifted(labels, by=-1) if ahead else labels


def _first(names: Sequence[str], item: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in item), None)


def _line(value: Any, row: int) -> torch.Tensor:
    line = torch.as_tensor(value)
    if line.ndim != 1 or line.is_floating_point():
        raise DataError(
            f"packed: document {row} has {line.dtype} of shape {tuple(line.shape)}; expected whole "
            "numbers of one dimension"
        )
    return line.to(torch.int64)


def _check_equal(tokens: torch.Tensor, labels: torch.Tensor, row: int) -> None:
    if len(tokens) != len(labels):
        raise DataError(
            f"packed: document {row} has {len(tokens)} tokens and {len(labels)} labels; expected "
            "one label for each token"
        )


def _shifted(labels: torch.Tensor, *, by: int) -> torch.Tensor:
    border = labels.new_full((1,), IGNORED)
    return torch.cat([border, labels[:-1]] if by > 0 else [labels[1:], border])
