"""A state in slices, stored by its processes: the bytes of one, read by any number of them."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support.numbers.processes import in_group
from support.numbers.sliced_state import own_batches, sliced_group, whole_bits
from support.numbers.tiny_model import batches, bits, cross_entropy, new_state, num_updates, samples
from torch import nn

from epochal.engine.checkpoint.serialize import StateParts, load_state, split_state
from epochal.engine.checkpoint.slices import load_slices, slices_among
from epochal.engine.config.numerics import EmaConfig, GradientsConfig
from epochal.engine.loop.epoch import Recipe, train_epoch
from epochal.engine.model.build import build_model
from epochal.engine.model.ema import WeightAverage
from epochal.engine.model.state import TrainingState
from epochal.tasks.computing.buffer import Buffer, pack
from epochal.tasks.computing.shared_pack import pack_slices

ARRAYS = {"x/loss": np.arange(5.0), "empty": np.empty(0)}
PARTS = ("model", "optimizer", "ema")


def state_of(exchange, seed):
    state = new_state(seed=seed)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    return state, None if exchange is None else sliced_group(state, exchange, 4)


def written(exchange, path):
    """Trains, and leaves the state in a file as one process would; gives what is in it."""
    torch.set_num_threads(1)
    state, group = state_of(exchange, 1)
    found = batches(*samples(44), batch_size=4, accumulate=4)
    train_epoch(
        state,
        found if group is None else own_batches(found, group),
        Recipe(cross_entropy(), gradients=GradientsConfig(accumulate=4, shards=4), seed=5),
        epoch=0,
        num_updates=num_updates(44, batch_size=4, accumulate=4),
        group=group,
    )
    parts = split_state(state)
    files = {name: getattr(parts, name) for name in PARTS}
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    buffer = Buffer(descriptor)
    if group is None:
        packed = pack(buffer, files, ARRAYS)
    else:
        slices = {name: slices_among(part, state.slices) for name, part in files.items()}
        packed = pack_slices(buffer, group, files, slices, ARRAYS)
        if packed is None:
            return None
    return (
        {name: bytes(buffer.file(packed, name)) for name in PARTS},
        {name: buffer.array(packed, name).tolist() for name in ARRAYS},
        parts.document,
    )


def read(exchange, folder):
    """The state that was stored, as a whole; read into one with other weights."""
    torch.set_num_threads(1)
    state, _ = state_of(exchange, 2)
    tensors = {name: load_slices(folder / name, state.slices) for name in PARTS}
    load_state(state, StateParts(document=json.loads((folder / "state").read_text()), **tensors))
    return (bits(state) if exchange is None else whole_bits(state, exchange)), {
        name: float(one.sum()) for name, one in state.ema.tensors.items() if not state.slices
    }


def test_two_processes_store_the_bytes_of_one_and_four_read_them(tmp_path):
    alone = written(None, f"{tmp_path}/alone")
    found = in_group(written, 2, tmp_path, f"{tmp_path}/shared")
    assert found == [alone, None]
    folder = tmp_path / "stored"
    folder.mkdir()
    for name, data in found[0][0].items():
        (folder / name).write_bytes(data)
    (folder / "state").write_text(json.dumps(found[0][2]))
    whole, _ = read(None, folder)
    four = tmp_path / "four"
    four.mkdir()
    for one, _ in in_group(read, 4, four, folder):
        assert one == whole


# --- memory -----------------------------------------------------------------------------------

WIDTH, LAYERS = 2048, 20  # 320 MiB of weights, 960 MiB with AdamW's averages
MIB = 1 << 20
SMAPS = Path("/proc/self/smaps_rollup")


def large():
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])


def pss_mib():
    with SMAPS.open() as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


class Peak:
    """The most memory of this process inside the block, in MiB."""

    def __enter__(self):
        self.mib, self._over = pss_mib(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._over.wait(0.002):
            self.mib = max(self.mib, pss_mib())

    def __exit__(self, *_):
        self.mib = max(self.mib, pss_mib())
        self._over.set()
        self._thread.join()


def large_state(exchange):
    model = build_model(large, seed=1)
    state = TrainingState(model=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.1))
    return state, sliced_group(state, exchange, 4)


def own_mib(state):
    slots = [one for slot in state.optimizer.state.values() for one in slot.values()]
    tensors = [*state.model.state_dict().values(), *slots]
    return sum(one.nbytes for one in tensors) / MIB


def large_written(exchange, folder):
    state, group = large_state(exchange)
    for parameter in state.named_parameters().values():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad()
    parts = split_state(state)
    files = {"model": parts.model, "optimizer": parts.optimizer}
    buffer = Buffer(os.open(folder / "buffer", os.O_RDWR | os.O_CREAT))
    slices = {name: slices_among(part, state.slices) for name, part in files.items()}
    with Peak() as peak:
        packed = pack_slices(buffer, group, files, slices, {})
    if packed is not None:
        for name in files:
            (folder / name).write_bytes(buffer.file(packed, name))
        (folder / "state").write_text(json.dumps(parts.document))
    return peak.mib - own_mib(state), own_mib(state)


def large_read(exchange, folder):
    state, _ = large_state(exchange)
    with Peak() as peak:
        tensors = {name: load_slices(folder / name, state.slices) for name in PARTS[:2]}
        document = json.loads((folder / "state").read_text())
        load_state(state, StateParts(document=document, **tensors))
        for slot in state.optimizer.state.values():
            for one in slot.values():
                one.mul_(2)  # what was only mapped is memory now
    return peak.mib - own_mib(state), own_mib(state)


@pytest.mark.slow
@pytest.mark.skipif(not SMAPS.exists(), reason="Linux tells it")
def test_no_process_holds_a_whole_state_while_it_is_stored_or_read(tmp_path):
    """A state of 960 MiB: beside its slices a process has less than 600 MB, torch included."""
    found = {}
    for size, work in ((2, large_written), (2, large_read), (4, large_read)):
        folder = tmp_path / f"{size}-{work.__name__}"
        folder.mkdir()
        found[work.__name__, size] = in_group(work, size, folder, tmp_path)
    for (_, size), ranks in found.items():
        for beside, own in ranks:
            assert own == pytest.approx(960 / size, rel=0.01)
            assert beside * MIB < 600e6, found
