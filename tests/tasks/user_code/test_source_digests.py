"""A target's source: its file and what it imports beside the config, and nothing else."""

import sys

import pytest

from epochal.data.errors import TargetError
from epochal.tasks.user_code.source_digests import source_digests


def test_imports_are_followed_also_within_functions_and_packages(tmp_path):
    (tmp_path / "model.py").write_text(
        "import layers\ndef f():\n    from parts.deep import thing\n"
    )
    (tmp_path / "layers.py").write_text("import os, torch\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("")
    (tmp_path / "parts/deep.py").write_text("from . import sibling\nfrom .other import x\n")
    (tmp_path / "parts/sibling.py").write_text("")
    (tmp_path / "parts/other.py").write_text("x = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    found = source_digests("model", folder=tmp_path)
    assert list(found) == [
        "layers.py", "model.py", "parts/__init__.py", "parts/deep.py", "parts/other.py",
        "parts/sibling.py",
    ]  # fmt: skip


def test_an_edit_changes_one_digest(tmp_path):
    (tmp_path / "model.py").write_text("import layers\n")
    (tmp_path / "layers.py").write_text("a = 1\n")
    before = source_digests("model", folder=tmp_path)
    (tmp_path / "layers.py").write_text("a = 2\n")
    after = source_digests("model", folder=tmp_path)
    assert before["model.py"] == after["model.py"]
    assert before["layers.py"] != after["layers.py"]


def test_modules_that_import_each_other_end(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("import a\n")
    assert list(source_digests("a", folder=tmp_path)) == ["a.py", "b.py"]


@pytest.mark.parametrize("module", ["torch.nn", "epochal.data.datasets", "json", "builtins"])
def test_installed_modules_have_no_source_of_the_users(tmp_path, module):
    assert source_digests(module, folder=tmp_path) == {}


def test_a_users_file_comes_before_an_installed_module(tmp_path):
    (tmp_path / "data.py").write_text("")
    (tmp_path / "json.py").write_text("")
    assert list(source_digests("data", folder=tmp_path)) == ["data.py"]
    assert list(source_digests("json", folder=tmp_path)) == ["json.py"]


def test_a_module_on_the_path_outside_installed_packages_counts(tmp_path, monkeypatch):
    library = tmp_path / "library"
    library.mkdir()
    (library / "mylib_of_test.py").write_text("x = 1\n")
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(library), *sys.path])
    assert list(source_digests("mylib_of_test", folder=folder)) == ["mylib_of_test.py"]


def test_a_file_that_is_no_python_is_refused_with_its_name(tmp_path):
    (tmp_path / "model.py").write_text("def broken(:\n")
    with pytest.raises(TargetError, match=r"model\.py"):
        source_digests("model", folder=tmp_path)


def test_nothing_is_imported(tmp_path):
    (tmp_path / "explosive_of_test.py").write_text("raise RuntimeError\n")
    assert source_digests("explosive_of_test", folder=tmp_path)
    assert "explosive_of_test" not in sys.modules
