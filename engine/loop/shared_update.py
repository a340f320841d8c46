"""An update that several processes share: what each micro-step has left, in order of micro-steps.

A process trains on its own micro-batches. At the update's end each gets what all of them have left
beside the gradients: shares of the loss, denominators, statistics of normalisation. From there on
all do the same, with the same numbers, so that every process holds the state that one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from torch import Tensor, nn

from epochal.data.errors import TargetError
from epochal.data.types import Window
from epochal.engine.loop.loss_weights import LossWeights
from epochal.engine.loop.recorder import UpdateRecorder
from epochal.engine.model.running_statistics import RunningStatistics
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.group import Group


@dataclass
class SharedUpdate:
    """The update under way, as the processes of `group` share it."""

    group: Group
    state: TrainingState
    statistics: RunningStatistics
    _shares: list[Tensor] = field(default_factory=list)
    _parts: list[Mapping[str, Tensor]] = field(default_factory=list)
    _collected: list[tuple[list[int], list[Tensor]]] = field(default_factory=list)
    _held: _Held | None = None

    def begin_micro_batch(self) -> None:
        """Before a forward pass."""
        if self._held is None:
            self._held = _Held(self.state, self.statistics)

    def took(self, share: Tensor, parts: Mapping[str, Tensor]) -> None:
        """After a backward pass: the micro-batch's share of the loss, and of its parts."""
        self._shares.append(share)
        self._parts.append(parts)
        self._collected.append(self.statistics.take())

    def meet(self, window: Window, recorder: UpdateRecorder, loss_weights: LossWeights) -> None:
        """Exchanges what was left, and tells it to `recorder` and `loss_weights`, in order.

        Raises TargetError where a forward pass has changed what no two processes can change.
        """
        if self._held is not None:
            self._held.check()
        added, exact = loss_weights.added
        names = sorted(self._parts[0]) if self._parts else None
        counts = [count for count, _ in self._collected]
        collected = [tensor for _, found in self._collected for tensor in found]
        numbers = [*self._shares, *(one[name] for one in self._parts for name in names or ())]
        document = {"batches": len(added), "parts": names, "exact": exact, "statistics": counts}
        given = self.group.exchange.gather(document, [*numbers, *added, *collected])
        in_order = self.group.in_order([_of_process(*one) for one in given])
        for left in in_order:
            recorder.add_loss(left.share, left.parts)
        exact = all(told["exact"] for told, _ in given)
        loss_weights.take_all([left.added for left in in_order], exact=exact, window=window)
        self.statistics.take_all([left.statistics for left in in_order])
        self._shares, self._parts, self._collected = [], [], []

    def end(self) -> None:
        """After the optimizer's step."""
        self._held = None


@dataclass(frozen=True)
class _Left:
    """What one micro-batch has left. statistics: for `RunningStatistics.take_all`."""

    share: Tensor
    parts: dict[str, Tensor]
    added: Tensor
    statistics: tuple[Sequence[int], Sequence[Tensor]]


def _of_process(told: Mapping[str, Any], tensors: Sequence[Tensor]) -> list[_Left]:
    """What the micro-batches of one process have left, in order."""
    count, names, rest = told["batches"], told["parts"] or (), iter(tensors)
    shares = list(islice(rest, count))
    parts = [dict(zip(names, islice(rest, len(names)), strict=True)) for _ in shares]
    added = list(islice(rest, count))
    statistics = [(counts, list(islice(rest, 2 * sum(counts)))) for counts in told["statistics"]]
    return [_Left(*one) for one in zip(shares, parts, added, statistics, strict=True)]


class _Held:
    """What a forward pass may not change where several processes make some of them each."""

    def __init__(self, state: TrainingState, statistics: RunningStatistics) -> None:
        self._modules: dict[str, nn.Module] = {"model": state.model}
        for name, companion in state.companions.items():
            if isinstance(companion.part, nn.Module):
                self._modules[name] = companion.part
        self._statistics = statistics.buffers
        self._versions = self._now()

    def check(self) -> None:
        """Raises TargetError."""
        now = self._now()
        changed = [name for name, version in self._versions.items() if now.get(name) != version]
        if changed:
            raise TargetError(
                f"launch.processes: {changed[0]} is changed by a forward pass, and several "
                "processes would each change their own. Use launch.processes: 1, or a layer that "
                "keeps nothing between batches; running statistics of BatchNorm are kept right"
            )

    def _now(self) -> dict[str, tuple[int, int]]:
        """Name → which tensor it is, and how often it was written to."""
        return {
            f"{part}.{name}": (id(tensor), tensor._version)  # noqa: SLF001 - torch's own name for it
            for part, module in self._modules.items()
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
            if id(tensor) not in self._statistics
        }
