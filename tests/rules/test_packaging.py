"""The wheel: every package is in it, and it works beside users' modules of the same names."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


FRONT_DOOR = "flows/front_door/"
"""Its __init__.py is that of `epochal` itself."""


def _sources():
    """The files of the checkout, without what builds and caches left in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    return [name for name in listed if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: a build folder in the checkout would hand on files of earlier builds."""
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in _sources():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q",
         "-w", str(folder), str(source)],
        check=True, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    (built,) = folder.glob("epochal-*.whl")
    return built


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = ("data/", "engine/", "tasks/", "flows/")
    sources = [name for name in _sources() if name.startswith(packages)]
    assert names == {f"epochal/{name.removeprefix(FRONT_DOOR)}" for name in sources}
    assert {f"epochal/{package}py.typed" for package in packages} <= names


def test_the_version_is_that_of_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_each_dependency_says_why_it_is_there():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    for line in lines[start + 1 : lines.index("]", start)]:
        assert "#" in line, line


def test_constraints_pin_every_direct_dependency():
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [*project["dependencies"], *(
        one for name, extra in project["optional-dependencies"].items() if name != "dev"
        for one in extra
    )]  # fmt: skip
    names = {
        one.split("[")[0].split(">")[0].split("<")[0].split("=")[0].strip().lower()
        for one in wanted
    }
    assert names - pinned == set()


def test_an_installed_wheel_works_beside_users_modules_of_the_same_names(wheel, tmp_path):
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies of this environment, without this checkout: the wheel alone gives epochal.
    installed = [folder for folder in sys.path if folder.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(installed) + "\n")
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("data", "tasks", "engine", "flows"):
        (folder / f"{name}.py").write_text(f"from torch import nn\nMARK = {name!r}\n")
    (folder / "engine.py").write_text(
        "from torch import nn\n\ndef make():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    (folder / "run.yaml").write_text(
        "name: wheel\nepochs: 1\nmodel: {target: 'engine:make'}\n"
        "train_data: {target: 'epochal.data.datasets:digits', args: {split: train}}\n"
        "validation_data: {target: 'epochal.data.datasets:digits', args: {split: validation}}\n"
        "optimizer: {target: 'torch.optim:SGD', args: {lr: 0.1}}\nloader: {batch_size: 64}\n"
    )
    python = environment / "bin/python"
    where = _run(python, "-c", "import epochal.flows.cli as c; print(c.__file__)", cwd=folder)
    assert str(site) in where
    plan = _run(python, "-m", "epochal.flows.cli", "plan", "run.yaml", cwd=folder)
    assert "initialise" in plan
    code = (
        "from pathlib import Path\n"
        "from epochal.tasks.config.load import load_config\n"
        "from epochal.tasks.running.open import open_run\n"
        "inline = load_config(Path('run.yaml'), overrides=['launch.kind=inline'])\n"
        "session = open_run(inline).session\n"
        "model = session.trainer.worker.work.ready_components().state.model\n"
        "print('stages', len(session.run.stages), model[1])\n"
    )
    assert "stages 3 Linear" in _run(python, "-c", code, cwd=folder)


def _run(python, *arguments, cwd):
    variables = {**os.environ, "HOME": str(cwd), "PYTHONPATH": ""}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
