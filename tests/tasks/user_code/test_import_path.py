"""The config's folder is imported from, and shadows nothing for others than the user's files."""

import subprocess
import sys

import pytest
from support.runs.bare_run import BareRun
from support.runs.project import Project

from epochal.data.errors import TargetError
from epochal.data.types import Target
from epochal.tasks.user_code.targets import call_target


@pytest.fixture(autouse=True)
def clean_modules(tmp_path):
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def called(folder, target):
    return call_target(Target(target=target), field="model", folder=folder)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that imports a module of the name `helpers_of_test`, installed with it."""
    place = tmp_path / "site-packages"
    (place / "users_of_test").mkdir(parents=True)
    (place / "users_of_test" / "__init__.py").write_text(
        "def whose():\n    import helpers_of_test\n    return helpers_of_test.WHOSE\n"
    )
    (place / "helpers_of_test.py").write_text("WHOSE = 'installed'\n")
    monkeypatch.syspath_prepend(str(place))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "helpers_of_test.py").write_text("WHOSE = 'mine'\n")
    return folder


def test_files_named_as_those_of_the_standard_library_are_nothing_to_it(tmp_path):
    """In a process of its own: what is imported once is never looked for again."""
    for name in ("profile", "statistics", "queue", "random", "platform", "tokenize"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not for you')\n")
    (tmp_path / "model.py").write_text(
        "import cProfile, profile, statistics\n"
        "def make(): return [m.__file__ for m in (cProfile, profile, statistics)]\n"
    )
    code = (
        "from pathlib import Path\n"
        "from epochal.data.types import Target\n"
        "from epochal.tasks.user_code.targets import call_target\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "files = call_target(Target(target='model:make'), field='model', folder=folder)\n"
        "import torch, torch.profiler\n"
        "assert not any(file.startswith(str(folder)) for file in files), files\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_an_installed_package_imports_its_own_module_of_a_name_that_the_folder_has_too(installed):
    (installed / "model.py").write_text("import users_of_test as u\ndef make(): return u.whose()\n")
    assert called(installed, "model:make") == "installed"


def test_the_users_files_import_the_users_module_of_a_name_that_is_installed_too(installed):
    (installed / "model.py").write_text("def make():\n    import helpers_of_test as h\n"
                                        "    return h.WHOSE\n")  # fmt: skip
    assert called(installed, "model:make") == "mine"


def test_a_name_that_an_installed_module_has_taken_is_said(installed, caplog):
    (installed / "first.py").write_text("import users_of_test as u\ndef make(): return u.whose()\n")
    assert called(installed, "first:make") == "installed"
    (installed / "model.py").write_text("import helpers_of_test as h\ndef make(): return h.WHOSE\n")
    assert called(installed, "model:make") == "installed"
    (record,) = caplog.records
    assert f"{installed}/helpers_of_test.py is not what is imported by its name" in record.message
    with pytest.raises(TargetError, match=r"helpers_of_test\.py cannot be imported.*rename"):
        called(installed, "helpers_of_test:make")


def test_a_folder_without_modules_hides_no_package(tmp_path, monkeypatch):
    place = tmp_path / "site-packages" / "images_of_test"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("WHOSE = 'installed'\n")
    monkeypatch.syspath_prepend(str(place.parent))
    folder = tmp_path / "project"
    (folder / "images_of_test").mkdir(parents=True)
    (folder / "model.py").write_text("import images_of_test as i\ndef make(): return i.WHOSE\n")
    assert called(folder, "model:make") == "installed"


def test_a_run_trains_beside_such_files(tmp_path, home):
    project = Project(tmp_path / "project", epochs=1)
    for name in ("profile", "statistics", "logging", "types"):
        project.write(f"{name}.py", "raise RuntimeError('this is not for you')\n")
    run = BareRun(project.config)()
    assert run.weights
    assert "profile.py" not in run.session.run_inputs.sources["model"]
