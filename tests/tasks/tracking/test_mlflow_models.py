"""What the ledger leaves in MLflow beside curves: the best model, links to the checkpoints."""

import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support.stores.tracking_store import Finished

from epochal.data.types import Target
from epochal.tasks.tracking.background import ModelSource
from epochal.tasks.tracking.connection import connect

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
