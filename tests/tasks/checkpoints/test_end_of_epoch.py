"""A checkpoint at the end of an epoch: all of the state comes back, into a state that differs."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save
from support.numbers.tiny_model import bits, new_state, run_epoch, samples
from support.stores.stage_records import KEY, OTHER

from epochal.data.documents import dump_document
from epochal.data.errors import CorruptObject
from epochal.data.stage_store.records import StageRecord
from epochal.data.stage_store.stages import StageStore
from epochal.data.store.open import open_store
from epochal.engine.config.numerics import EmaConfig
from epochal.engine.model.ema import WeightAverage
from epochal.tasks.checkpoints.end_of_epoch import checkpoint_parts, load_checkpoint, load_ema


def state_of(seed):
    state = new_state(seed=seed)
    state.ema = WeightAverage(state.model, EmaConfig(decay=0.5))
    return state


@pytest.fixture
def stored(tmp_path):
    """A trained state, the store that has it, and its record."""
    state = state_of(1)
    run_epoch(state, *samples(32))
    stages = StageStore(open_store(f"file://{tmp_path}/store"))
    tensors, documents = checkpoint_parts(state)
    artifacts = {
        name: stages.put_artifact(KEY, "safetensors", save(part)) for name, part in tensors.items()
    }
    for name, body in documents.items():
        artifacts[name] = stages.put_artifact(KEY, "json", dump_document(body))
    record = StageRecord(
        stage="train", epoch=0, key=KEY, inputs={}, environment={}, environment_digest=OTHER,
        consumed={}, artifacts=artifacts, values={},
    )  # fmt: skip
    return state, stages, record


def test_a_checkpoint_gives_back_weights_optimizer_count_and_average(stored):
    state, stages, record = stored
    other = state_of(2)
    load_checkpoint(stages, record, SimpleNamespace(state=other))
    assert bits(other) == bits(state)
    for name, average in state.ema.tensors.items():
        assert torch.equal(other.ema.tensors[name], average), name


def test_the_average_alone_leaves_the_weights(stored):
    state, stages, record = stored
    other = state_of(2)
    before = bits(other)
    load_ema(stages, record, other.ema)
    assert bits(other) == before
    assert torch.equal(other.ema.tensors["head.weight"], state.ema.tensors["head.weight"])


def test_a_state_that_is_none_is_set_aside_with_its_record(stored):
    _, stages, record = stored
    artifact = stages.put_artifact(KEY, "json", b"{}")
    record = stages.commit(
        StageRecord(**{**vars(record), "artifacts": {**record.artifacts, "state": artifact}})
    )
    with pytest.raises(CorruptObject):
        load_checkpoint(stages, record, SimpleNamespace(state=state_of(2)))
    assert stages.lookup([KEY])[KEY].record is None
