"""An update that several processes share: what each micro-step has left, in order of micro-steps.

A process trains on its own micro-batches. At the update's end each gets what all of them have left
beside the gradients: shares of the loss, denominators, statistics of normalisation. From there on
all do the same, with the same numbers, so that every process holds the state that one would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    _held: _Held | None = None

    def begin_micro_batch(self) -> None:
        """Before a forward pass."""
        if self._held is None:
            self._held = _Held(self.state, self.statistics)

    def took(self, share: Tensor, parts: Mapping[str, Tensor]) -> None:
        """After a backward pass: the micro-batch's share of the loss, and of its parts."""
        self._shares.append(share)
        self._parts.append(parts)

    def meet(self, window: Window, recorder: UpdateRecorder, loss_weights: LossWeights) -> None:
        """Exchanges what was left, and tells it to `recorder` and `loss_weights`, in order.

        Raises TargetError where a forward pass has changed what no two processes can change.
        """
        if self._held is not None:
            self._held.check()
        added, exact = loss_weights.added
        names = sorted(self._parts[0]) if self._parts else None
        counts, collected = self.statistics.calls()
        numbers = [*self._shares, *(one[name] for one in self._parts for name in names or ())]
        document = {"batches": len(added), "parts": names, "exact": exact, "statistics": counts}
        given = self.group.exchange.gather(document, [*numbers, *added, *collected])
        shares: list[tuple[Tensor, dict[str, Tensor]]] = []
        all_added: list[Tensor] = []
        all_collected: list[tuple[Sequence[int], Sequence[Tensor]]] = []
        for told, tensors in given:
            own, rest = _one_processs(told, tensors)
            shares += own
            all_added += rest[: told["batches"]]
            all_collected.append((told["statistics"], rest[told["batches"] :]))
        for share, parts in shares:
            recorder.add_loss(share, parts)
        loss_weights.take_all(all_added, exact=all(one["exact"] for one, _ in given), window=window)
        self.statistics.take_all(all_collected)
        self._shares, self._parts = [], []

    def end(self) -> None:
        """After the optimizer's step."""
        self._held = None


def _one_processs(
    told: Mapping[str, Sequence[str] | int], tensors: Sequence[Tensor]
) -> tuple[list[tuple[Tensor, dict[str, Tensor]]], Sequence[Tensor]]:
    """Share and parts of each micro-batch of one process, and the tensors behind them."""
    count, names = told["batches"], told["parts"] or ()
    assert isinstance(count, int)
    assert not isinstance(names, int)
    found = []
    for place in range(count):
        start = count + place * len(names)
        parts = dict(zip(names, tensors[start : start + len(names)], strict=True))
        found.append((tensors[place], parts))
    return found, tensors[count + count * len(names) :]


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
