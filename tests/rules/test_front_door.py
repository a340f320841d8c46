"""The front door: what `import epochal` gives and costs, and that pages go through it."""

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest
from support.pages import DOCS, README, ROOT, blocks

import epochal
import epochal.engine

FUNCTIONS = (
    "compare", "load_config", "open_store", "plan", "query", "runs", "samples", "sweep",
    "train", "why",
)  # fmt: skip
FACES = {
    "epochal", "epochal.engine", "epochal.data.datasets", "epochal.data.errors",
    "epochal.data.store", "epochal.data.tables", "epochal.data.testing", "epochal.data.testing.s3",
    "epochal.flows.train",
}  # fmt: skip
"""What pages and examples may import from; `epochal.flows.train` is what deployments name."""

HEAVY = (
    "torch", "numpy", "pyarrow", "prefect", "mlflow", "fsspec", "pydantic", "yaml", "typer", "rich",
    "matplotlib", "sklearn", "torchmetrics",
)  # fmt: skip

FORMER = {
    "step": ("DefaultStep", "Step", "StepOutput", "split_batch", "target_of", "to_device"),
    "mixing": ("MixedBatch", "MixedStep", "soft_targets"),
    "epoch": ("EpochResult", "train_epoch", "updates_table"),
    "ema": ("WeightAverage",),
    "serialize": (
        "StateParts", "load_model_tensors", "load_state", "load_tensors", "split_state",
    ),
    "config": (
        "EmaConfig", "GradientsConfig", "MetricTarget", "MetricsConfig", "PrecisionConfig",
    ),
}  # fmt: skip
"""Names that users' code imports from modules of the engine that lie elsewhere now."""


def pages():
    """Name → Python source of each block of the pages and each file of the examples."""
    for name, text in {"README.md": README, **DOCS}.items():
        for number, block in enumerate(blocks(text, "python")):
            yield f"{name}, block {number}", block
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text()


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def errors():
    return {
        name
        for name, value in vars(epochal.data.errors).items()
        if isinstance(value, type) and value.__module__ == "epochal.data.errors"
    }


def test_it_gives_ten_functions_every_error_and_the_version():
    assert len(epochal.__all__) == 29
    assert set(epochal.__all__) == {*FUNCTIONS, *errors(), "__version__"}
    assert dir(epochal) == sorted(epochal.__all__)


def test_every_name_is_there_when_it_is_asked_for():
    for name in epochal.__all__:
        value = getattr(epochal, name)
        assert value == metadata.version("epochal") if name == "__version__" else value.__doc__
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = epochal.nothing_like_it


@pytest.mark.parametrize("module", ["epochal", "epochal.engine", "epochal.data.tables"])
def test_importing_a_face_imports_nothing_heavy(module):
    code = f"import sys, {module}\nfound = [name for name in {HEAVY!r} if name in sys.modules]\n"
    subprocess.run([sys.executable, "-c", f"{code}assert not found, found"], check=True, cwd="/")


def test_every_typed_face_names_for_type_checkers_what_it_gives():
    for face in (epochal, epochal.engine):
        tree = ast.parse(Path(face.__file__).read_text())
        named = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert set(face.__all__) <= named


def test_pages_and_examples_import_from_faces_alone():
    sources = dict(pages())
    assert len(sources) > 10
    for name, source in sources.items():
        for module in imported(source):
            if module.partition(".")[0] == "epochal":
                assert module in FACES, f"{name}: {module}"


@pytest.mark.parametrize("module", FORMER)
def test_names_that_users_import_from_former_modules_are_there(module):
    former = import_module(f"epochal.engine.{module}")
    assert set(FORMER[module]) <= set(former.__all__)
    for name in FORMER[module]:
        assert getattr(former, name).__name__ == name
