"""Nothing that a store holds becomes code: no pickle, no import, no evaluation of what was read."""

import ast
import sys

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project, call
from support.source_tree import ROOT, files
from support.stores.malformed_bytes import rewritten

from epochal.data.store.open import open_store

UNPICKLING = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "copyreg",
    "code", "codeop", "runpy",
}  # fmt: skip
RUNNING = {"eval", "exec", "compile", "__import__"}
LOADING = {
    ("torch", "load"), ("np", "load"), ("numpy", "load"), ("yaml", "load"), ("yaml", "full_load"),
    ("yaml", "unsafe_load"), ("yaml", "load_all"), ("pd", "read_pickle"), ("jit", "load"),
}  # fmt: skip
IMPORTING = {"import_module", "spec_from_file_location", "module_from_spec", "SourceFileLoader"}
MAY_IMPORT_BY_NAME = {
    "tasks/user_code/targets.py", "data/lazy.py", "flows/flow_run/client.py",
    "flows/flow_run/imports.py", "tasks/tracking/saved_model.py",
}  # fmt: skip
SAFE = {("load", "allow_pickle", False), ("load", "weights_only", True)}
"""Of NumPy and torch: then arrays and tensors alone are read."""
MAY_CALL_TARGETS = {
    "tasks/user_code/components.py", "tasks/run_data/make.py", "tasks/user_code/targets.py",
    "tasks/tracking/model_folder.py", "tasks/planning/run_length.py",
    "tasks/run_data/index_data.py", "tasks/scaffold/moving_in.py", "tasks/scaffold/own_code.py",
    "tasks/scaffold/own_data.py", "tasks/sweeps/trials.py", "tasks/trackers/process.py",
    "tasks/why/replay.py",
}  # fmt: skip
"""Of configs and command lines that a person wrote, and of models that a person asks MLflow for."""


def named(node):
    """The names by which a call is made: `(torch, load)` of `torch.load(…)`."""
    function = node.func
    if isinstance(function, ast.Name):
        return (None, function.id)
    if isinstance(function, ast.Attribute):
        owner = function.value
        inner = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", None)
        return (inner, function.attr)
    return (None, None)


def offences(tree, place):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = {alias.name.partition(".")[0] for alias in node.names}
            yield from (f"import {name}" for name in found & UNPICKLING)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.partition(".")[0] in UNPICKLING:
                yield f"from {node.module}"
        elif isinstance(node, ast.Call):
            owner, name = named(node)
            safe = any(
                isinstance(given.value, ast.Constant)
                and (name, given.arg, given.value.value) in SAFE
                for given in node.keywords
            )
            loads = (owner, name) in LOADING and not safe
            if (isinstance(node.func, ast.Name) and name in RUNNING) or loads:
                yield f"{owner}.{name}"
            if name in IMPORTING and place not in MAY_IMPORT_BY_NAME:
                yield name
            if name in {"call_target", "resolve_target"} and place not in MAY_CALL_TARGETS:
                yield name


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_unpickles_evaluates_or_imports_by_name(path):
    place = str(path.relative_to(ROOT))
    assert list(offences(ast.parse(path.read_text()), place)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "eval('1')",
        "__import__('os')", "import numpy as np\nnp.load('x', allow_pickle=True)",
        "torch.load('x', weights_only=False)", "np.load('x', allow_pickle=maybe)",
        "import importlib\nimportlib.import_module(name)", "yaml.load(text)",
        "call_target(record.inputs['model'])",
    ],
)  # fmt: skip
def test_what_the_search_is_for_is_found(text):
    assert list(offences(ast.parse(text), "tasks/some.py"))


PLANTED = """
    import pathlib
    pathlib.Path(__file__).with_name("was_imported").write_text("")
    def boom(*_, **__):
        raise SystemExit(66)
"""


@pytest.fixture
def planted(tmp_path, home):
    """A finished run in whose store every target was made one of an enemy's module."""
    project = Project(tmp_path / "project", epochs=2)
    BareRun(project.config)()
    store = open_store(f"file://{project.store}")
    enemy = tmp_path / "enemy"
    enemy.mkdir()
    project.write("../enemy/planted.py", PLANTED)
    target = {"target": "planted:boom", "args": {}}

    def of_plan(body):
        config = body["config"] | {"folder": str(enemy)}
        for field in ("model", "loss", "step"):
            config[field] = target
        for field in ("train_data", "validation_data", "optimizer"):
            config[field] = config[field] | target | (
                {"args": {"lr": 1.0}} if field == "optimizer" else {}
            )  # fmt: skip
        body["config"] = config

    def of_record(body):
        body["inputs"] = body["inputs"] | {"model": target, "loss": target, "step": target}
        body["values"]["target"] = "planted:boom"
        body["environment"]["module"] = "planted:boom"

    for path in store.listing():
        if "/plans/" in path:
            rewritten(store, path, of_plan)
        elif path.endswith("record.json"):
            rewritten(store, path, of_record)
    yield project, enemy
    sys.modules.pop("planted", None)


COMMANDS = (
    ("runs", "STORE"), ("show", "blobs", "--store", "STORE"), ("verify", "STORE"), ("gc", "STORE"),
    ("samples", "blobs", "--store", "STORE"), ("plan", "CONFIG"), ("show", "CONFIG"),
    ("export", "blobs", "--store", "STORE", "--out", "OUT"), ("samples", "CONFIG"),
    ("report", "blobs", "--store", "STORE", "--out", "PAGE"), ("report", "CONFIG", "--out", "PAGE"),
    ("samples", "blobs", "--store", "STORE", "--pictures", "PICTURE"),
    ("samples", "CONFIG", "--pictures", "PICTURE"),
    ("landscape", "blobs", "--store", "STORE", "--points", "3", "--out", "PICTURE"),
    ("landscape", "CONFIG", "--points", "3", "--out", "PICTURE"),
)  # fmt: skip


def test_no_target_that_a_store_names_is_imported(planted, tmp_path):
    project, enemy = planted
    places = {
        "STORE": str(project.store),
        "CONFIG": str(project.config),
        "OUT": str(tmp_path / "out.safetensors"),
        "PAGE": str(tmp_path / "report.html"),
        "PICTURE": str(tmp_path / "samples.png"),
    }
    for command in COMMANDS:
        done = call(*(places.get(word, word) for word in command))
        assert done.code in {0, 2}, (command, done.err)
        assert "Traceback" not in done.err
    assert "planted" not in sys.modules
    assert not (enemy / "was_imported").exists()
    before = BareRun(project.config)()  # with the config that the user has
    assert before.weights
    assert not (enemy / "was_imported").exists()


def test_a_planted_target_that_a_config_names_is_imported(planted):
    from epochal.data.errors import TargetError

    project, enemy = planted
    with pytest.raises(TargetError, match="raised SystemExit: 66"):
        BareRun(project.config, folder=str(enemy), model__target="planted:boom")
    assert (enemy / "was_imported").exists()


@pytest.mark.parametrize(
    ("field", "target", "told"),
    [
        ("model", "os:system", "missing required argument 'command'"),
        ("model", "os:getcwd", "returned a str, expected a torch.nn.Module"),
        ("train_data", "os:getcwd", "found a builtins.str; expected a map-style data set"),
        ("train_data", "builtins:object", "expected a map-style data set"),
        ("validation_data", "os:environ.copy", "found a builtins.dict"),
        ("loss", "os:getpid", "returned a int, expected a callable"),
        ("loss", "os:system", "trying loss(model(input), target)"),
        ("loss", "builtins:dict", "returned a dict, expected a callable"),
        ("loss", "builtins:type", "type() takes 1 or 3 arguments"),
        ("loss", "sys:exit", "raised SystemExit"),
        ("step", "os:getcwd", "returned a str; expected a callable"),
        ("model", "sys:exit", "raised SystemExit"),
        ("model", "os:path", "is a module, expected something that can be called"),
        ("model", "os:no_such_name", "has no 'no_such_name'"),
    ],
)
def test_a_target_that_is_none_of_its_field_is_named(tmp_path, home, field, target, told):
    from epochal.data.errors import InputError

    project = Project(tmp_path / "project")
    with pytest.raises(InputError) as caught:
        BareRun(project.config, **{field: f"{{target: '{target}'}}"})
    assert field in str(caught.value)
    assert told in str(caught.value)
    assert not list(project.store.glob("stages/*"))
