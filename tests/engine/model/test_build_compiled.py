"""torch.compile: the same training, and nothing of the compiled module in what is stored."""

import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.numbers.tiny_model import Net, bits, new_state, run_epoch, samples
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.engine.checkpoint.serialize import load_state, split_state
from epochal.engine.config.numerics import PrecisionConfig
from epochal.engine.model.precision import compiled

pytestmark = [
    pytest.mark.skipif(
        shutil.which("g++") is None and shutil.which("c++") is None,
        reason="torch.compile on a CPU needs a C++ compiler, and none is on the PATH",
    ),
    # torch's own compiler imports a module of torch that is written in what torch has deprecated
    pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning"),
]
MODEL = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.body(x))
"""
# SGD where numbers are compared: a bias before BatchNorm has a gradient of rounding errors alone,
# and AdamW makes steps of full size out of them.
COMPILE = PrecisionConfig(compile=True)


def close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def _afresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_updates_are_close_to_eager_ones_and_a_state_goes_over_to_either(tmp_path):
    x, y = samples(16)
    states = [new_state(lambda: Net(dropout=0), torch.optim.SGD, momentum=0.9) for _ in range(2)]
    eager, fast = states
    fast.forward = compiled(fast.model, COMPILE)
    for state in states:
        assert run_epoch(state, x, y).num_updates == 2
    one, other = (split_state(state) for state in states)
    close(one.model, other.model)
    close(one.optimizer, other.optimizer)
    assert one.document == other.document
    load_state(eager, other)  # what a compiled run left goes on without compiling
    for name, tensor in fast.model.state_dict().items():
        assert torch.equal(tensor, eager.model.state_dict()[name]), name


def test_a_compiled_run_stores_the_models_own_names_under_keys_of_its_own(tmp_path, home):
    project = Project(
        tmp_path / "project",
        epochs=1,
        sampling={"policy": "none"},
        optimizer={"target": "torch.optim:SGD", "args": {"lr": 0.05, "momentum": 0.9}},
    )
    project.write("model.py", MODEL)
    few = {"max_updates": 2, "checkpoint__every_updates": 1}
    plain = BareRun(project.config, **few)()
    fast = BareRun(project.config, precision="{compile: true}", **few)()
    found = []
    for run in (plain, fast):
        record = run.view.record_of(run.view.stage("train", 0))
        tensors = {}
        for name in ("model", "optimizer"):
            with run.session.stage_store.fetch_artifact(record, name) as path:
                tensors |= {f"{name}/{key}": one for key, one in load_file(path).items()}
        found.append(tensors)
    close(*found)
    assert not any("_orig_mod" in name for name in found[1])
    # compilation acts on numbers: it is in the key, and nothing of the plain run is taken for it
    keys = [run.view.stage("train", 0).known_key for run in (plain, fast)]
    assert keys[0] != keys[1]


def test_a_compiled_epoch_goes_on_from_inside_it_to_the_same_bits():
    """With dropout: what compiled code draws follows from the seed, epoch and micro-step too."""
    x, y = samples(24)
    states = [new_state() for _ in range(3)]
    for state in states:
        state.forward = compiled(state.model, COMPILE)
    whole, broken, again = states
    kept = {}

    def keep(progress):
        if progress.micro_steps == 2:
            kept["partial"] = copy.deepcopy(progress.capture())
            kept["state"] = copy.deepcopy(split_state(broken))

    run_epoch(whole, x, y)
    run_epoch(broken, x, y, on_progress=keep)
    load_state(again, kept["state"])
    run_epoch(again, x, y, resume=kept["partial"], start=2)
    assert bits(again) == bits(whole) == bits(broken)
