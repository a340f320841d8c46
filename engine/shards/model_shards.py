"""A model of which each process holds a slice: FSDP2 (`fully_shard`), with our order of additions.

Blocks are gathered before their forward and backward passes and freed after them. The gradients of
a micro-batch are cut into slices as soon as a block has them; each goes to the process that holds
that slice of the weights, which adds those of all micro-batches in the order and tree of one
process. So the bits are those of one process, whatever the number of processes.

Micro-batches are dealt in turns: in turn k process r has micro-batch k P + r. What a process keeps
of an update's sums then is its slice of one shard's sum and of the tree, 1 / P of one process's.

A process that has no micro-batch in a turn gives its slices to the others and takes theirs. Since
each block's turn is announced by all, forward passes that differ are an error, and no hang.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard

from epochal.data.errors import TargetError
from epochal.engine.model.state import Slice
from epochal.engine.shards.blocks import Block, blocks_of
from epochal.engine.shards.deal import shard_ends
from epochal.engine.shards.exchange import Exchange
from epochal.engine.shards.tree import Leaf, SumTree

# P processes, N numbers of a block's slices with padding

AT_ONCE = 1 << 23
"""Numbers whose norms are taken at once: as many lie beside a slice, or one tensor."""

_IDLE, _OVER, _GATHER, _REDUCE = range(4)


def rows_of(length: int, rank: int, size: int) -> range:
    """Which of `length` rows a process has: equally many each, the last ones fewer or none.

    As `torch.chunk` divides them, and with it FSDP2.
    """
    each = -(-length // size)
    return range(min(rank * each, length), min((rank + 1) * each, length))


def sliced(shape: Sequence[int], rank: int, size: int) -> Slice:
    """The slice that a process has of a tensor."""
    rows = rows_of(shape[0], rank, size)
    return Slice(tuple(shape), rows.start, len(rows))


class _Mesh(DeviceMesh):
    """FSDP2's view of the processes, without torch's default group.

    Libraries that see one (torchmetrics, samplers) would act as if the run were theirs to divide.
    """

    def __init__(self, exchange: Exchange, device: torch.device) -> None:
        self._own_group = _Processes(exchange)
        ranks = torch.arange(exchange.size)
        super().__init__(device.type, ranks, _init_backend=False, _rank=exchange.rank)

    def get_group(self, mesh_dim: int | str | None = None) -> Any:  # noqa: ARG002 - it has one
        """What FSDP2 asks for rank and size; all it sends goes through ours."""
        return self._own_group


class _Processes:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def rank(self) -> int:
        return self._exchange.rank

    def size(self) -> int:
        return self._exchange.size


class ModelShards:
    """The slices of a model that one process holds.

    parameters: name → its slice, which is the memory that FSDP2 gathers from; a tied one stands
    there by each of its names. slices: name → which rows of what they are.
    """

    def __init__(
        self,
        model: nn.Module,
        exchange: Exchange,
        *,
        device: torch.device,
        shards: int,
        class_names: Collection[str] = (),
    ) -> None:
        assert exchange.size > 1, "FSDP2 reduces nothing in a group of one"
        self._exchange = exchange
        self._shards = shards
        self._mesh = _Mesh(exchange, device)
        blocks = blocks_of(model, class_names)
        names: dict[int, list[str]] = {}  # all of a parameter that is tied
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        names_of = {
            name: names[id(parameter)]
            for block in blocks
            for name, parameter in block.parameters.items()
        }
        self.slices: dict[str, Slice] = {
            name: sliced(parameter.shape, exchange.rank, exchange.size)
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }
        self._sums = [_BlockSum(block, exchange.size, shards) for block in blocks]
        for number, block in enumerate(blocks):
            _check_dtypes(block)
            module = fully_shard(block.module, mesh=self._mesh, reshard_after_forward=True)
            if block.parameters:
                module.set_custom_all_gather(_Gather(self, number))  # type: ignore[arg-type] # by its form
                module.set_custom_reduce_scatter(_Reduce(self, number))  # type: ignore[arg-type] # likewise
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        held = dict(model.named_parameters(remove_duplicate=False))
        self._held: dict[str, DTensor] = {name: _distributed(held[name]) for name in names_of}
        self.parameters: dict[str, nn.Parameter] = {}
        self._names: dict[int, str] = {}
        for name, one in self._held.items():
            own = _local(one).view(self.slices[name].own_shape)
            parameter = nn.Parameter(own, requires_grad=one.requires_grad)
            self._names[id(parameter)] = name
            self.parameters |= dict.fromkeys(names_of[name], parameter)
        self._turn = self._count = 0
        hooked: Any = model  # its stubs lack types
        hooked.register_state_dict_post_hook(_slices_out)
        hooked.register_load_state_dict_pre_hook(self._slices_in)

    # --- turns --------------------------------------------------------------------------------

    def begin_turn(self, position: int, count: int) -> None:
        """Before the backward pass of an update's micro-batch `position` of `count`."""
        self._turn, self._count = position // self._exchange.size, count

    def end_turn(self) -> None:
        """After this process's forward pass, or forward and backward pass."""
        self._agree(_OVER)
        for one in self._held.values():  # FSDP2's own sums, which nobody reads
            one.grad = None

    def idle(self, turn: int = 0, count: int = 0) -> None:
        """A turn in which this process has no batch: others have, and need its slices.

        turn, count: of which update's, where gradients are taken.
        """
        self._turn, self._count = turn, count
        while True:
            what, number, active = self._met(_IDLE, 0)
            if what == _OVER:
                return
            if what == _GATHER:
                own = self._sums[number].padded(self.parameters)
                self._exchange.begin([(rank, own) for rank in active], [])()
            else:
                self._take(number, None, active)

    def gather(self, number: int, whole: Tensor, own: Tensor) -> None:
        """Fills `whole`, shape (P N,), with the slices of a block; `own` is this process's."""
        active = self._agree(_GATHER, number)
        rank, parts = self._exchange.rank, whole.view(self._exchange.size, -1)
        if parts[rank].data_ptr() != own.data_ptr():
            parts[rank].copy_(own)
        others = [one for one in range(self._exchange.size) if one != rank]
        self._exchange.begin(
            [(one, parts[rank]) for one in others if one in active],
            [(one, parts[one]) for one in others],
        )()

    def reduce(self, number: int, gradients: Tensor) -> None:
        """Takes the gradients of a block and a micro-batch, shape (P N,), to be added."""
        expected = self._sums[number].trainable_numbers * self._exchange.size
        if gradients.numel() != expected:
            raise TargetError(
                f"launch.shard_model: some parameters of {self._sums[number].title} got no "
                "gradient from a micro-batch, and others did; expected all or none of a block. "
                "Leave out what the forward pass does not use, or launch.shard_model"
            )
        active = self._agree(_REDUCE, number)
        self._take(number, gradients.view(self._exchange.size, -1), active)

    def _take(self, number: int, gradients: Tensor | None, active: Sequence[int]) -> None:
        block, rank = self._sums[number], self._exchange.rank
        received = {
            one: block.like(self.parameters).new_empty(block.trainable_numbers)
            for one in active
            if one != rank
        }
        sent = []
        if gradients is not None:
            sent = [(one, gradients[one]) for one in range(self._exchange.size) if one != rank]
            received[rank] = gradients[rank].clone()
        self._exchange.begin(sent, [(one, got) for one, got in received.items() if one != rank])()
        for one in active:
            position = self._turn * self._exchange.size + one
            block.add(received[one], position=position, count=self._count)

    def _agree(self, what: int, number: int = 0) -> list[int]:
        _, _, active = self._met(what, number)
        return active

    def _met(self, what: int, number: int) -> tuple[int, int, list[int]]:
        """What all processes that have a batch are at, and which these are."""
        told = self._exchange.gather_number(what + 4 * number)
        active = [rank for rank, one in enumerate(told) if one != _IDLE]
        found = {told[rank] for rank in active}
        if len(found) != 1:
            shown = ", ".join(sorted(self._shown(one) for one in found)) or "none"
            raise TargetError(
                "launch.shard_model: the forward passes of the processes differ in the blocks that "
                f"they use: they are at {shown}; expected the same blocks in the same order for "
                "every batch. Leave launch.shard_model out, or make it one block: name the class "
                "around it in launch.shard_blocks"
            )
        number, what = divmod(found.pop(), 4)
        return what, number, active

    def _shown(self, told: int) -> str:
        number, what = divmod(told, 4)
        if what == _OVER:
            return "the end"
        passes = "forward or backward" if what == _GATHER else "end of the backward"
        return f"the {passes} pass of {self._sums[number].title}"

    # --- an update ----------------------------------------------------------------------------

    def sums(self, parameters: Sequence[nn.Parameter], count: int) -> Leaf:
        """The sum of an update's gradients of each of these slices; None where there was none.

        count: micro-batches of the update, which ends with it.
        """
        found: dict[str, Tensor | None] = {}
        for block in self._sums:
            total = block.end(count)
            for name, place in block.places.items():
                size, own = self.parameters[name].numel(), self.slices[name].own_shape
                found[name] = None if total is None else total[place : place + size].view(own)
        return [found[self._names[id(one)]] for one in parameters]

    def norms(
        self,
        tensors: Sequence[Tensor],
        parameters: Sequence[nn.Parameter],
        norms_of: Callable[[list[Tensor]], Tensor],
    ) -> Tensor:
        """What `norms_of` gives of the whole tensors, shape (len(tensors),), in every process.

        tensors: slices, each of the form of its parameter. A norm depends on the order of its
        additions; so each tensor is brought to one process as a whole, these in turns.
        """
        names = [self._names[id(one)] for one in parameters]
        found: dict[int, Tensor] = {}
        todo = list(range(len(tensors)))
        while todo:
            taken, numbers = 0, 0
            while taken < len(todo) and (not taken or numbers < AT_ONCE):
                slice_ = self.slices[names[todo[taken]]]
                numbers += slice_.shape[0] * slice_.row_numbers
                taken += 1
            some, todo = todo[:taken], todo[taken:]
            wholes = self._brought({place: tensors[place] for place in some}, names)
            if wholes:
                found |= dict(zip(wholes, norms_of(list(wholes.values())), strict=True))
        own = [found[place] for place in sorted(found)]
        given = self._exchange.gather(None, [torch.stack(own)] if own else [])
        of_rank = [list(one[0]) if one else [] for _, one in given]
        size = self._exchange.size
        return torch.stack([of_rank[place % size][place // size] for place in range(len(tensors))])

    def _brought(self, tensors: Mapping[int, Tensor], names: Sequence[str]) -> dict[int, Tensor]:
        """The whole tensors whose place is this process's turn."""
        rank, size = self._exchange.rank, self._exchange.size
        sent, got, wholes = [], [], {}
        for place, tensor in tensors.items():
            if place % size != rank:
                sent.append((place % size, tensor.contiguous()))
                continue
            shape = self.slices[names[place]].shape
            whole = wholes[place] = tensor.new_empty(shape)
            for one in range(size):
                rows = rows_of(shape[0], one, size)
                part = whole[rows.start : rows.stop]
                if one == rank:
                    part.copy_(tensor)
                else:
                    got.append((one, part))
        self._exchange.begin(sent, got)()
        return wholes

    def _slices_in(
        self,
        module: nn.Module,  # noqa: ARG002 - as torch calls a hook
        state_dict: dict[str, Any],
        prefix: str,
        *_: Any,
    ) -> None:
        """Slices, as `state_dict` gives them, become what FSDP2 loads."""
        for name, slice_ in self.slices.items():
            tensor = state_dict.get(prefix + name)
            if isinstance(tensor, Tensor) and not isinstance(tensor, DTensor):
                whole = torch.empty(slice_.shape, device="meta")
                state_dict[prefix + name] = DTensor.from_local(
                    tensor.to(self._mesh.device_type),
                    self._mesh,
                    [Shard(0)],
                    run_check=False,
                    shape=whole.shape,
                    stride=whole.stride(),
                )


class _BlockSum:
    """The gradients of a block's slices over an update, in the order and tree of one process.

    places: trainable parameter → where its numbers begin among those of the block's slices.
    """

    def __init__(self, block: Block, size: int, shards: int) -> None:
        self.title = block.name or type(block.module).__name__
        self.places: dict[str, int] = {}
        self.trainable_numbers = 0
        self._padded: dict[str, int] = {}
        for name, parameter in block.parameters.items():
            rows = len(rows_of(parameter.shape[0], 0, size))
            numbers = rows * (parameter[:1].numel())
            self._padded[name] = numbers
            if parameter.requires_grad:
                self.places[name] = self.trainable_numbers
                self.trainable_numbers += numbers
        self._shards = shards
        self._tree = SumTree()
        self._sum: Tensor | None = None
        self._shard = 0

    def like(self, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        """Some slice of the block, for its dtype and device."""
        return parameters[next(iter(self._padded))].detach()

    def padded(self, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        """The slices of this process in one tensor, as FSDP2 gathers them."""
        found = self.like(parameters).new_zeros(sum(self._padded.values()))
        start = 0
        for name, numbers in self._padded.items():
            flat = parameters[name].detach().reshape(-1)
            found[start : start + len(flat)] = flat
            start += numbers
        return found

    def add(self, numbers: Tensor, *, position: int, count: int) -> None:
        """The slices of an update's micro-batch `position`, the next of those that have some."""
        self._end_shards(before=position, count=count)
        self._sum = numbers if self._sum is None else self._sum.add_(numbers)

    def end(self, count: int) -> Tensor | None:
        """The sum over the update, or None if nothing was added."""
        self._end_shards(before=count, count=count)
        self._shard = 0
        return self._tree.take()[0]

    def _end_shards(self, *, before: int, count: int) -> None:
        ends = shard_ends(count, self._shards)
        while self._shard < self._shards and ends[self._shard] <= before:
            leaf: Leaf = [self._sum]
            self._tree.add(leaf)
            self._sum = None
            self._shard += 1


class _Memory:
    """How FSDP2 gets memory for what it sends."""

    def __init__(self, shards: ModelShards, number: int) -> None:
        self._of, self._number = shards, number

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """As FSDP2 asks for it."""
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Memory):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: Any,  # noqa: ARG002 - of one group
        async_op: bool = False,  # noqa: ARG002, FBT001, FBT002 - as FSDP2 calls it; done at its return
    ) -> None:
        self._of.gather(self._number, output_tensor, input_tensor)


class _Reduce(_Memory):
    def __call__(
        self,
        output_tensor: Tensor,  # noqa: ARG002 - sums are given at the update's end
        input_tensor: Tensor,
        group: Any,  # noqa: ARG002 - of one group
        op: Any,  # noqa: ARG002 - always a sum
        async_op: bool = False,  # noqa: ARG002, FBT001, FBT002 - as FSDP2 calls it; done at its return
    ) -> None:
        self._of.reduce(self._number, input_tensor)


def _check_dtypes(block: Block) -> None:
    found = {parameter.dtype: name for name, parameter in block.parameters.items()}
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise TargetError(
            f"launch.shard_model: {first} is {one} and {second} {other}, and both are gathered "
            "with one block; expected one type, or blocks of their own: launch.shard_blocks"
        )


def _distributed(parameter: Tensor) -> DTensor:
    assert isinstance(parameter, DTensor), "FSDP2 gives each parameter as one"
    return parameter


@torch.no_grad()
def _local(tensor: DTensor) -> Tensor:
    local: Tensor = tensor.to_local()
    return local.detach()


@torch.no_grad()
def _slices_out(
    module: nn.Module,  # noqa: ARG001 - as torch calls a hook
    state_dict: dict[str, Any],
    prefix: str,  # noqa: ARG001 - likewise
    local_metadata: Any,  # noqa: ARG001 - likewise
) -> None:
    """`state_dict` gives the slices of this process, which share the parameters' memory."""
    for name, tensor in state_dict.items():
        if isinstance(tensor, DTensor):
            state_dict[name] = tensor.to_local()
