"""A state in slices over the processes of a group, and what it is as a whole."""

from dataclasses import replace

import numpy as np
import torch

from epochal.data.types import Batch
from epochal.engine.checkpoint.serialize import split_state
from epochal.engine.shards.group import Group
from epochal.engine.shards.shard_state import shard_state


def sliced_group(state, exchange, shards, class_names=()):
    """The group of a state that is left with this process's slices."""
    group = Group(exchange, shards, in_turns=True)
    group.model = shard_state(
        state, exchange, device=torch.device("cpu"), shards=shards, class_names=class_names
    )
    return group


def own_batches(all_batches, group):
    """Those of a group's process, as the loader gives them."""
    updates = {}
    for batch in all_batches:
        updates.setdefault(batch.index - batch.window.position, []).append(batch)
    for first, update in updates.items():
        own = group.micro_batches(len(update))
        if not own:
            window = replace(update[0].window, last=True)
            yield Batch(None, np.zeros(0, np.int64), window, first)
        for position in own:
            one = update[position]
            one.window = replace(one.window, last=position == own[-1])
            yield one


def joined(exchange, tensors, slices):
    """Whole tensors by name, of all processes' slices."""
    given = exchange.gather(None, [one.detach().contiguous() for one in tensors.values()])
    found = {}
    for place, (name, own) in enumerate(tensors.items()):
        parts = [sent[place] for _, sent in given]
        slice_ = slices.get(name)
        sliced = slice_ is not None and tuple(own.shape) == slice_.own_shape
        found[name] = torch.cat(parts) if sliced else parts[0]
    return found


def whole_bits(state, exchange):
    """As `bits` of a whole state."""
    parts = split_state(state)
    slots = {
        f"state/{name}/{key}": slice_
        for name, slice_ in state.slices.items()
        for key in ("exp_avg", "exp_avg_sq", "momentum_buffer", "sum")
    }
    tensors = {
        **joined(exchange, parts.model, state.slices),
        **joined(exchange, parts.optimizer, slots),
    }
    return {name: one.numpy().tobytes() for name, one in tensors.items()}, parts.document
