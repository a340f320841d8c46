"""State to bytes and back: every field, bit for bit, and nothing that does not fit goes in."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.numbers.tiny_model import Net, bits, new_state, run_epoch, samples, save_tensors
from torch import nn

from epochal.data.documents import dump_document, load_document
from epochal.data.errors import CorruptObject, StateMismatch, Unavailable
from epochal.engine.checkpoint import serialize
from epochal.engine.checkpoint.serialize import (
    StateParts,
    load_model_tensors,
    load_state,
    load_tensors,
    split_state,
)
from epochal.engine.model.state import TrainingState, fresh_optimizer

OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.SGD, {}),
    (torch.optim.AdamW, {"amsgrad": True}),
    (torch.optim.NAdam, {}),
    (torch.optim.RAdam, {}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Adafactor, {}),
    (torch.optim.ASGD, {}),
    (torch.optim.Rprop, {}),
]


def through_files(state, folder):
    """The state's parts, written and read again."""
    parts = split_state(state)
    save_tensors(parts.model, folder / "model.safetensors")
    save_tensors(parts.optimizer, folder / "optimizer.safetensors")
    return StateParts(
        model=load_tensors(folder / "model.safetensors", device="cpu"),
        optimizer=load_tensors(folder / "optimizer.safetensors", device="cpu"),
        document=load_document(dump_document(parts.document), name="state"),
    )


def test_counts_and_options_that_training_has_changed_come_back(tmp_path):
    first, second = (new_state(optimizer=torch.optim.SGD, momentum=0.9) for _ in range(2))
    first.updates_done, first.updates_skipped = 5, 3
    first.optimizer.param_groups[0]["momentum"] = 0.7
    load_state(second, through_files(first, tmp_path))
    assert (second.updates_done, second.updates_skipped) == (5, 3)
    assert second.optimizer.param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize(
    ("kind", "options"), OPTIMIZERS, ids=lambda one: getattr(one, "__name__", "")
)
def test_a_state_comes_back_bit_for_bit_and_trains_on_alike(kind, options, tmp_path):
    x, y = samples(40)
    first = new_state(optimizer=kind, **options)
    run_epoch(first, x, y)
    second = new_state(optimizer=kind, seed=99, **options)
    load_state(second, through_files(first, tmp_path))
    assert bits(second) == bits(first)
    for state in (first, second):
        run_epoch(state, x, y, epoch=1)
    assert bits(second) == bits(first)
    assert second.updates_done == 10


def test_equal_states_give_equal_files(tmp_path):
    x, y = samples(40)
    files = []
    for name in ("one", "other"):
        state = new_state()
        run_epoch(state, x, y)
        (tmp_path / name).mkdir()
        through_files(state, tmp_path / name)
        files.append((tmp_path / name / "optimizer.safetensors").read_bytes())
    assert files[0] == files[1]


def test_plain_torch_loads_the_model_file_which_holds_no_metadata(tmp_path):
    state = new_state()
    through_files(state, tmp_path)
    plain = Net()
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert b"__metadata__" not in (tmp_path / "model.safetensors").read_bytes()
    assert torch.equal(plain.head.weight, state.model.head.weight)


def test_tied_weights_are_stored_under_each_name_and_stay_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.other.weight = self.one.weight

    model = Tied()
    save_tensors(model.state_dict(), tmp_path / "model.safetensors")
    found = load_tensors(tmp_path / "model.safetensors", device="cpu")
    assert set(found) == {"one.weight", "other.weight"}
    copy = Tied()
    load_model_tensors(copy, found)
    assert copy.one.weight is copy.other.weight
    assert torch.equal(copy.one.weight, model.one.weight)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]),
    st.lists(st.integers(0, 4), max_size=3),
)
def test_tensors_of_any_kind_and_shape_come_back(dtype, shape):
    import tempfile
    from pathlib import Path

    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 2, size=tuple(shape)))
    tensor = raw.to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_tensors(
            {
                "a": tensor,
                "view": tensor.unsqueeze(0)[0:1],
                "b": tensor.t() if len(shape) == 2 else tensor,
            },
            path,
        )
        found = load_tensors(path, device="cpu")
    assert found["a"].dtype == dtype
    assert torch.equal(found["a"], tensor)


def test_a_nan_payload_survives(tmp_path):
    payload = torch.from_numpy(np.array([0x7FC00123, 0x7F800001], dtype=np.uint32).view(np.float32))
    save_tensors({"x": payload}, tmp_path / "x.safetensors")
    found = load_tensors(tmp_path / "x.safetensors", device="cpu")["x"]
    assert found.numpy().tobytes() == payload.numpy().tobytes()


def test_a_fresh_optimizer_has_no_history():
    x, y = samples(40)
    state = new_state()
    run_epoch(state, x, y)
    fresh_optimizer(state)
    assert not state.optimizer.state
    assert state.updates_done == 0


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, b"\xff" * 8 + b"{}", b"\x02" + bytes(7) + b"{}!"]
)
def test_bytes_that_are_no_safetensors_file_are_refused_with_its_name(data, tmp_path):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(CorruptObject, match="bad.safetensors is no safetensors file"):
        load_tensors(path, device="cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("head.bias"), "head.bias: not stored"),
        (lambda t: t.update(extra=torch.ones(1)), "extra: stored, but not in the model"),
        (
            lambda t: t.update({"head.bias": torch.ones(9)}),
            r"head.bias: stored \(9,\), the model wants \(4,\)",
        ),
        (lambda t: t.update({"head.bias": torch.ones(4).double()}), "stored torch.float64"),
    ],
)
def test_weights_that_do_not_fit_name_the_difference(change, words):
    tensors = dict(new_state().model.state_dict())
    change(tensors)
    before = new_state()
    with pytest.raises(StateMismatch, match=words + ".*model.args changed"):
        load_model_tensors(before.model, tensors)
    assert bits(before) == bits(new_state())


def test_an_optimizer_of_other_parameters_is_refused():
    state = new_state()
    run_epoch(state, *samples(8))
    parts = split_state(state)
    other = TrainingState(
        model=state.model, optimizer=torch.optim.AdamW(state.model.head.parameters(), lr=0.1)
    )
    with pytest.raises(StateMismatch, match="was the model or the optimizer changed"):
        load_state(other, parts)


def test_optimizer_state_of_odd_kinds_is_kept_and_what_needs_pickle_is_refused():
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter].update(
                        {"best": math.inf, "pair": (1, [torch.ones(2), None]), "name": {"a": 0.5}}
                    )

    state = new_state(optimizer=Odd)
    run_epoch(state, *samples(8))
    other = new_state(optimizer=Odd, seed=7)
    parts = split_state(state)
    load_state(
        other,
        StateParts(
            parts.model, parts.optimizer, load_document(dump_document(parts.document), name="x")
        ),
    )
    slot = other.optimizer.state[other.model.head.bias]
    assert slot["best"] == math.inf
    assert slot["pair"][1][0].tolist() == [1, 1]
    assert slot["pair"][1][1] is None
    assert slot["name"] == {"a": 0.5}
    state.optimizer.state[state.model.head.bias]["bad"] = object()
    with pytest.raises(StateMismatch, match="head.bias/bad is a object, which cannot be stored"):
        split_state(state)


def test_a_state_dict_with_more_than_tensors_is_refused():
    class Extra(Net):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    with pytest.raises(StateMismatch, match="only tensors can be stored"):
        split_state(new_state(Extra))


def test_a_full_disk_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(OSError) as raised:
        save_tensors({"x": torch.ones(3)}, tmp_path / "absent" / "x.safetensors")
    assert "absent" in str(raised.value)


def test_memory_that_runs_out_is_no_fault_of_the_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("Cannot allocate memory (os error 12)")

    save_tensors({"a": torch.ones(2)}, tmp_path / "f")
    monkeypatch.setattr(serialize, "load_file", fail)
    with pytest.raises(Unavailable, match="memory ran out") as raised:
        load_tensors(tmp_path / "f", device="cpu")
    assert not isinstance(raised.value, CorruptObject)
