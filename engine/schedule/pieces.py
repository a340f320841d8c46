"""Pieces of functions of fractional epoch, in plain Python floats: values and canonical segments.

A function is a row of pieces that touch. Whoever has one gives the pieces that act in a window, so
that a run of a million epochs need not list a million pieces to tell those of one epoch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from epochal.data.hashing import canonical_float

SHORTEST = 1e-9
"""Epochs. A piece that is shorter is the rounding of a breakpoint; no update falls into it."""
MAX_PIECES_PER_EPOCH = 10_000
"""More would make the key of an epoch slower than the epoch."""


@dataclass(frozen=True)
class Piece:
    """The factor on [start, end), in epochs.

    `line`: from `first` to `last`, straight. `cosine`: the wave between phases `first` and `last`
    of [0, 2], 1 at 0 and 2, `floor` at 1. `power`: (1 - phase) ** power, from 1 down to `floor`.
    """

    kind: Literal["line", "cosine", "power"]
    start: float
    end: float
    first: float
    last: float
    floor: float = 0.0
    power: float = 1.0

    def parameter(self, t: float) -> float:
        """`first` at the start, `last` at the end, straight between."""
        if self.first == self.last:
            return self.first
        return self.first + (self.last - self.first) * (t - self.start) / (self.end - self.start)

    def value(self, t: float) -> float:
        """The factor at t."""
        parameter = self.parameter(t)
        if self.kind == "line":
            return parameter
        if self.kind == "power":
            return self.floor + (1 - self.floor) * math.pow(max(0.0, 1 - parameter), self.power)
        # Eq. 5, Loshchilov & Hutter 2017 (arXiv:1608.03983), without restarts.
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * parameter))

    def clipped(self, start: float, end: float) -> Piece:
        """The part of the piece within [start, end]."""
        low, high = max(start, self.start), min(end, self.end)
        first, last = self.parameter(low), self.parameter(high)
        return Piece(self.kind, low, high, first, last, self.floor, self.power)

    def plain(self) -> Piece:
        """The piece, as a line where it is one."""
        if self.kind == "line" or (self.floor != 1.0 and self.kind == "cosine"):
            return self
        if self.floor == 1.0:
            return line(self.start, self.end, 1.0, 1.0)
        if self.power == 1.0:
            return line(self.start, self.end, self.value(self.start), self.value(self.end))
        return self

    def segment(self) -> list[Any]:
        """The piece as a key holds it: kind, breakpoints, values at the ends, form."""
        numbers = [self.start, self.end, self.first, self.last]
        if self.kind != "line":
            numbers.append(self.floor)
        if self.kind == "power":
            numbers.append(self.power)
        return [self.kind, *map(canonical_float, numbers)]


def line(start: float, end: float, first: float, last: float) -> Piece:
    """A straight piece."""
    return Piece("line", start, end, first, last)


def level(start: float, end: float, value: float) -> Piece:
    """A piece that stays."""
    return Piece("line", start, end, value, value)


Window = Callable[[float, float], Iterable[Piece]]
"""Gives the pieces of a function that overlap [low, high], in order, perhaps with others."""


def within(pieces: Iterable[Piece], low: float, high: float) -> list[Piece]:
    """Those that overlap [low, high], whole; level neighbours of one value are one."""
    merged: list[Piece] = []
    for given in pieces:
        if given.end <= given.start or given.end <= low or given.start >= high:
            continue
        piece = given.plain()
        last = merged[-1] if merged else None
        if last is not None and _is_level(last) and _is_level(piece) and last.last == piece.first:
            merged[-1] = level(last.start, piece.end, last.first)
        else:
            merged.append(piece)
    return merged


def segments_within(window: Window, epoch: int) -> list[list[Any]]:
    """The function within [epoch, epoch + 1], as plain JSON: what the epoch's key holds."""
    acting = [
        piece.clipped(epoch, epoch + 1)
        for piece in within(window(epoch, epoch + 1), epoch, epoch + 1)
    ]
    kept = [piece for piece in acting if piece.end - piece.start > SHORTEST]
    ends = [*(piece.start for piece in kept[1:]), float(epoch + 1)]
    starts = [float(epoch), *ends[:-1]]  # what was dropped leaves no gap
    return [
        replace(piece, start=start, end=end).segment()
        for piece, start, end in zip(kept, starts, ends, strict=True)
    ]


def function_of(window: Window, *, epochs: int) -> Callable[[float], float]:
    """The function of t in [0, epochs]; it keeps the pieces of the epoch that it was last asked."""
    known_epoch = -1
    pieces: list[Piece] = []
    starts: list[float] = []

    def value(t: float) -> float:
        nonlocal known_epoch, pieces, starts
        epoch = max(0, min(int(t), epochs - 1))
        if epoch != known_epoch:
            pieces = within(window(epoch, epoch + 1), epoch, epoch + 1)
            starts = [piece.start for piece in pieces]
            known_epoch = epoch
        return pieces[max(0, bisect_right(starts, t) - 1)].value(t)

    return value


def _is_level(piece: Piece) -> bool:
    return piece.kind == "line" and piece.first == piece.last
