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
from epochal.engine.model.state import TrainingState
from epochal.engine.shards.group import Group
from epochal.engine.shards.running_statistics import RunningStatistics


@dataclass
class SharedUpdate:
    """The update under way, as the processes of `group` share it."""

    group: Group
    state: TrainingState
    statistics: RunningStatistics
    _shares: list[Tensor] = field(default_factory=list)
    _parts: list[Mapping[str, Tensor]] = field(default_factory=list)
    _collected: list[tuple[list[int], list[Tensor]]] = field(default_factory=list)
    _begun: bool = False

    def __post_init__(self) -> None:
        self._held = Held(self.state, self.statistics)

    def begin_micro_batch(self) -> None:
        """Before a forward pass."""
        if not self._begun:
            self._begun = True
            self._held.note()

    def took(self, share: Tensor, parts: Mapping[str, Tensor]) -> None:
        """After a backward pass: the micro-batch's share of the loss, and of its parts."""
        self._shares.append(share)
        self._parts.append(parts)
        self._collected.append(self.statistics.take())

    def meet(
        self, window: Window, kinds: str, recorder: UpdateRecorder, loss_weights: LossWeights
    ) -> list[str]:
        """Exchanges what was left, and tells it to `recorder` and `loss_weights`, in order.

        kinds: of this process's gradients; gives those of all, by rank. Raises TargetError where a
        forward pass has changed what no two processes can change.
        """
        self._held.check()
        added, exact = loss_weights.added
        names = sorted(self._parts[0]) if self._parts else None
        counts = [count for count, _ in self._collected]
        collected = [tensor for _, found in self._collected for tensor in found]
        numbers = [*self._shares, *(one[name] for one in self._parts for name in names or ())]
        document = {
            "batches": len(added),
            "parts": names,
            "exact": exact,
            "statistics": counts,
            "gradients": kinds,
        }
        given = self.group.exchange.gather(document, [*numbers, *added, *collected])
        in_order = self.group.in_order([_of_process(*one) for one in given])
        for left in in_order:
            recorder.add_loss(left.share, left.parts)
        exact = all(told["exact"] for told, _ in given)
        loss_weights.take_all([left.added for left in in_order], exact=exact, window=window)
        self.statistics.take_all([left.statistics for left in in_order])
        self._shares, self._parts, self._collected, self._begun = [], [], [], False
        return [one["gradients"] for one, _ in given]


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


class Held:
    """What a forward pass may not change where several processes make some of them each."""

    def __init__(self, state: TrainingState, statistics: RunningStatistics) -> None:
        modules = {"model": state.model}
        for name, companion in state.companions.items():
            if isinstance(companion.part, nn.Module):
                modules[name] = companion.part
        own = statistics.buffers
        self._places: list[tuple[str, Mapping[str, Tensor | None], str]] = []
        for part, whole in modules.items():
            for path, module in whole.named_modules(prefix=part):
                for held in (module._parameters, module._buffers):  # noqa: SLF001 - to look at them quickly
                    self._places += [
                        (f"{path}.{name}", held, name)
                        for name, tensor in held.items()
                        if tensor is not None and id(tensor) not in own
                    ]
        self._versions: list[tuple[int, int]] = []

    def note(self) -> None:
        """Before an update's first forward pass."""
        self._versions = self._now()

    def check(self) -> None:
        """After its last one. Raises TargetError."""
        if not self._versions:
            return
        now = self._now()
        if now != self._versions:
            pairs = zip(self._places, self._versions, now, strict=True)
            changed = [name for (name, _, _), before, after in pairs if before != after]
            raise TargetError(
                f"launch.processes: {changed[0]} is changed by a forward pass, and several "
                "processes would each change their own. Use launch.processes: 1, or a layer that "
                "keeps nothing between batches; running statistics of BatchNorm are kept right"
            )
        self._versions = []

    def _now(self) -> list[tuple[int, int]]:
        """Of each place which tensor it is, and how often it was written to."""
        tensors = (held.get(name) for _, held, name in self._places)
        return [(id(tensor), getattr(tensor, "_version", 0)) for tensor in tensors]
