"""A model's graph: it does what the module does, or it is said why there is none."""

import json
import textwrap

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from epochal.tasks.tracking.exported import export_model
from epochal.tasks.tracking.model_example import ModelExample
from epochal.tasks.tracking.saved_model import Predictor, load_module

NETS = """
    from torch import nn

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(3)
            self.head = nn.Linear(3, 2)

        def forward(self, x, scale=None):
            y = self.head(self.norm(x))
            return {"logits": y if scale is None else y * scale}

    class ByValue(Plain):
        def forward(self, x):
            return self.head(x) if float(x.sum()) > 0 else self.head(x) * 2
"""
X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
FORM = {"shape": [2, 3], "dtype": "float32"}


def folder_of(tmp_path, name):
    """A model's data folder, as a delivery leaves it; and the module."""
    folder = tmp_path / "data"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "nets_of_test.py").write_text(textwrap.dedent(NETS))
    (folder / "model.json").write_text(json.dumps({"target": f"nets_of_test:{name}", "args": {}}))
    weights = {
        "norm.weight": torch.ones(3), "norm.bias": torch.zeros(3),
        "norm.running_mean": torch.ones(3), "norm.running_var": torch.full((3,), 4.0),
        "norm.num_batches_tracked": torch.tensor(7),
        "head.weight": torch.ones(2, 3), "head.bias": torch.tensor([0.5, 1.0]),
    }  # fmt: skip
    save_file(weights, folder / "model.safetensors")
    return folder


def call(**changes):
    plain = {"args": [{"tensor": 0}], "kwargs": {}, "tensors": [FORM], "names": {"x": 0},
             "outputs": {"logits": {"shape": [2, 2], "dtype": "float32"}}}  # fmt: skip
    return ModelExample.model_validate({**plain, **changes})


@pytest.mark.filterwarnings("ignore")
def test_a_graph_does_what_the_module_does_for_any_number_of_samples(tmp_path):
    folder = folder_of(tmp_path, "Plain")
    assert export_model(folder, call(), X.tobytes()) is None
    graph, module = torch.export.load(folder / "model.pt2").module(), load_module(folder)
    x = torch.randn(7, 3)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), module(x))


@pytest.mark.filterwarnings("ignore")
def test_named_inputs_keep_their_names(tmp_path):
    folder = folder_of(tmp_path, "Plain")
    two = call(
        args=[], kwargs={"x": {"tensor": 0}, "scale": {"tensor": 1}},
        tensors=[FORM, {"shape": [2, 1], "dtype": "float32"}], names={"x": 0, "scale": 1},
    )  # fmt: skip
    numbers = X.tobytes() + np.ones((2, 1), np.float32).tobytes()
    assert export_model(folder, two, numbers) is None
    assert [spec["name"] for spec in json.loads(two.signature["inputs"])] == ["x", "scale"]
    assert two.numbers(numbers)["scale"] == [[1.0]]


@pytest.mark.filterwarnings("ignore")
def test_a_module_that_goes_by_values_has_no_graph_and_it_is_said_why(tmp_path):
    folder = folder_of(tmp_path, "ByValue")
    problem = export_model(folder, call(), X.tobytes())
    assert problem
    assert "\n" not in problem
    assert not (folder / "model.pt2").exists()


def test_a_model_loads_beside_another_whose_files_have_the_same_names(tmp_path):
    first = load_module(folder_of(tmp_path / "1", "Plain"))
    other = folder_of(tmp_path / "2", "Plain")
    code = other / "code" / "nets_of_test.py"
    code.write_text(code.read_text().replace("y * scale", "y + scale"))
    second, inputs = load_module(other), {"x": X, "scale": np.full((2, 1), 3.0, np.float32)}
    results = [Predictor(one).predict(inputs)["logits"] for one in (first, second)]
    plain = Predictor(first).predict(X)["logits"]
    np.testing.assert_allclose(results[0], plain * 3, rtol=1e-6)
    np.testing.assert_allclose(results[1], plain + 3, rtol=1e-6)
