"""What the ledger leaves in MLflow beside curves: the best model, links to the checkpoints."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support.stores.tracking_store import Finished

from epochal.data.types import Target
from epochal.tasks.running.model_graph import ModelGraphs
from epochal.tasks.tracking.background import ModelSource
from epochal.tasks.tracking.connection import connect
from epochal.tasks.tracking.model_example import ModelExample
from epochal.tasks.tracking.model_folder import Example

NET = """
    from torch import nn
    from layers import head

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Linear(3, width)
            self.dropout = nn.Dropout(0.5)
            self.head = head(width)

        def forward(self, x):
            return self.head(self.dropout(self.body(x)))
"""


LAYERS = """
    from torch import nn

    def head(width):
        return nn.Linear(width, 2)
"""


def write_project(folder):

    folder.mkdir()
    (folder / "net.py").write_text(textwrap.dedent(NET))
    (folder / "layers.py").write_text(textwrap.dedent(LAYERS))


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # of MLflow's own
def test_best_model_is_loaded_by_mlflow_and_predicts_what_the_module_does(database, tmp_path):
    import mlflow
    import torch

    from epochal.tasks.user_code.targets import call_target

    project = tmp_path / "project"
    write_project(project)
    target = Target(target="net:Net", args={"width": 4})
    module = call_target(target, field="model", folder=project).eval()
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    finished = Finished(epochs=2, updates=2, tensors=tensors)
    files = {name: (project / name).read_bytes() for name in ("net.py", "layers.py")}
    source = ModelSource(target, project, files=files)
    result = finished.run(database.uri, best_epoch=1, model=source)
    assert result.problem is None
    shutil.rmtree(project)
    uri = database.tags(result.run_id)["epochal.best_model"]
    with pytest.MonkeyPatch.context() as patch:  # `set_tracking_uri` would stay for later tests
        patch.setenv("MLFLOW_TRACKING_URI", database.uri)
        loaded = mlflow.pyfunc.load_model(uri)
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "download"))
    x = np.linspace(-1, 1, 12).reshape(4, 3)
    with torch.inference_mode():
        expected = module(torch.tensor(x, dtype=torch.float32)).numpy()
    np.testing.assert_array_equal(loaded.predict(x), expected)
    np.testing.assert_array_equal(loaded.predict({"x": x}), expected)
    assert {path.suffix for path in (tmp_path / "download").rglob("*") if path.is_file()} <= {
        "",
        ".txt",
        ".json",
        ".safetensors",
        ".py",
        ".yaml",
    }
    assert folder


def example_of(module, x):
    """What a trainer tells of a call of it."""
    import torch

    with torch.inference_mode():
        y = module(torch.tensor(x))
    form = {"shape": list(x.shape), "dtype": str(x.dtype)}
    out = {"shape": list(y.shape), "dtype": "float32"}
    call = ModelExample.model_validate(
        {"args": [{"tensor": 0}], "kwargs": {}, "tensors": [form], "names": {"x": 0},
         "outputs": {"": out}}
    )  # fmt: skip
    return Example(call, x.tobytes())


X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def delivered(database, tmp_path, monkeypatch):
    """A run with a best model, MLflow's id of it, and the module."""
    from epochal.tasks.user_code.targets import call_target

    project = tmp_path / "project"
    write_project(project)
    target = Target(target="net:Net", args={"width": 4})
    module = call_target(target, field="model", folder=project).eval()
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    finished = Finished(epochs=2, updates=2, tensors=tensors)
    files = {name: (project / name).read_bytes() for name in ("net.py", "layers.py")}
    example = example_of(module, X)
    source = ModelSource(target, project, files=files, example=lambda: example)
    graphs = ModelGraphs(database.uri, beside=False, when="always")
    result = finished.run(database.uri, best_epoch=1, model=source, graphs=graphs)
    assert result.problem is None
    shutil.rmtree(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri)
    return result.run_id, module


@pytest.mark.slow  # a process imports torch and MLflow, and exports
@pytest.mark.filterwarnings("ignore")  # of MLflow's and torch's own
def test_best_model_has_a_graph_that_pytorch_s_flavour_loads(database, delivered):
    import mlflow
    import torch

    run_id, module = delivered
    tags = database.tags(run_id)
    assert tags["epochal.best_model_pytorch"] == "yes"
    loaded = mlflow.pytorch.load_model(tags["epochal.best_model"])
    x = torch.randn(5, 3)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), module(x))
    # By the run's id, as by the model's own; and it can be registered.
    with torch.inference_mode():
        torch.testing.assert_close(mlflow.pytorch.load_model(f"runs:/{run_id}/model")(x), module(x))
    version = mlflow.register_model(f"runs:/{run_id}/model", "digits-classifier")
    by_name = mlflow.pyfunc.load_model(f"models:/digits-classifier/{version.version}")
    np.testing.assert_allclose(by_name.predict(x.numpy()), module(x).detach(), rtol=1e-5)
    signature = mlflow.models.get_model_info(tags["epochal.best_model"]).signature
    assert "shape" not in repr(signature.params)
    assert signature.inputs.inputs[0].shape == (-1, 3)
    assert signature.outputs.inputs[0].shape == (-1, 2)
    with pytest.raises(mlflow.exceptions.MlflowException, match="dtype|type"):
        by_name.predict(x.numpy().astype("float64"))


ELSEWHERE = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "epochal":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nowhere())
import numpy, mlflow
loaded = mlflow.pyfunc.load_model(sys.argv[1])
print(loaded.predict(numpy.ones((1, 3), "float32")).tolist())
"""


@pytest.mark.slow  # a process imports torch and MLflow
def test_best_model_loads_where_epochal_is_not_installed(database, delivered):
    import torch

    run_id, module = delivered
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            ELSEWHERE,
            database.tags(run_id)["epochal.best_model"],
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        expected = module(torch.ones(1, 3)).tolist()
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5)


def test_best_model_is_written_once_for_its_weights(database, tmp_path):

    write_project(tmp_path / "project")
    source = ModelSource(Target(target="net:Net"), tmp_path / "project")
    finished = Finished(epochs=2)
    finished.run(database.uri, best_epoch=1, model=source)
    before = database.dump()
    finished.run(database.uri, best_epoch=1, model=source)
    assert database.dump() == before
    assert database("SELECT status FROM logged_models") == [(2,)]


def test_checkpoints_are_listed_as_links_into_the_store(database):
    finished = Finished(epochs=2)
    result = finished.run(database.uri)
    client = connect(database.uri)

    path = client.download_artifacts(result.run_id, "checkpoints.json")
    links = json.loads(Path(path).read_text())["checkpoints"]
    assert [link["epoch"] for link in links] == [0, 1]
    assert links[0]["url"].startswith(finished.store.url)
