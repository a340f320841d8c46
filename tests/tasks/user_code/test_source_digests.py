"""A target's source: its file and what it imports beside the config, and nothing else."""

import sys

import pytest

from epochal.data.errors import TargetError
from epochal.tasks.user_code.source_digests import read_source


def source_digests(module, *, folder):
    return read_source(module, folder=folder).digests


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


def digest_of(tmp_path, text):
    (tmp_path / "model.py").write_text(text)
    return source_digests("model", folder=tmp_path)["model.py"]


CODE = "class Net:\n    def f(self, x=1):\n        return x + 2\n"


@pytest.mark.parametrize(
    "text",
    [
        f"# a remark\n{CODE}",
        f'"""What it is."""\n{CODE}',
        CODE.replace("(self, x=1)", "(self,x = 1,)"),
        CODE.replace("        return", '        """What it gives."""\n        return'),
        CODE.replace("class Net:\n", 'class Net:\n    """A net."""\n\n'),
        CODE.replace("x + 2", "(x\n            + 2)"),
        CODE.replace("\n", "\r\n"),
    ],
)
def test_comments_docstrings_and_formatting_are_not_in_the_digest(tmp_path, text):
    assert digest_of(tmp_path, text) == digest_of(tmp_path, CODE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1\n", "x = 2\n"),
        ("x = 1\n", "x = 1.0\n"),
        ("x = 1\n", "x = True\n"),
        ("x = 'a'\n", "x = b'a'\n"),
        ("x = None\n", "x = 'None'\n"),
        ("x = ['a', 'b']\n", "x = ['a\\n', 'b']\n"),
        ("x = ['a', 'b']\n", "x = ['ab']\n"),
        ("f(a, b)\n", "f(b, a)\n"),
        ("f(a)(b)\n", "f(a, b)\n"),
        ("x = f'{a}'\n", "x = f'{a!r}'\n"),
        ("def f(*, a=1): pass\n", "def f(a=1): pass\n"),
        ("def f(): return 'text'\n", "def f(): return 'other'\n"),
        ("def f():\n    if a:\n        b\n    c\n", "def f():\n    if a:\n        b\n        c\n"),
        ("import a\nimport b\n", "import b\nimport a\n"),
        ("x = '''a docstring'''\n", "x = '''another'''\n"),
    ],
)
def test_another_program_has_another_digest(tmp_path, one, other):
    assert digest_of(tmp_path, one) != digest_of(tmp_path, other)


GOLDEN = "40bc4bc06a7522370a0eb274657ca7e1535353cb123f4cace2725cdbe2347793"


def test_the_digest_of_a_program_stays_what_it_is(tmp_path):
    """Keys hold it: another one would compute every epoch of everybody again."""
    text = '"""Doc."""\nimport a\n\nclass N(a.B):\n    w: int = 0x10\n\n    def f(self, *x, **k):\n'
    text += "        return [y for y in x] if k else f'{x!r:>3}' + '\\n' * (1 if k else 2)\n"
    assert digest_of(tmp_path, text) == GOLDEN


def test_a_module_that_a_literal_names_is_followed(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text("import importlib\n")
    (tmp_path / "pkg/a.py").write_text(
        "from importlib import import_module as i, import_module\nimport importlib\n"
        "import_module('.b', __package__)\nimportlib.import_module('c')\n__import__('d')\n"
    )
    for name in ("pkg/b.py", "c.py", "d.py"):
        (tmp_path / name).write_text("")
    assert list(source_digests("pkg.a", folder=tmp_path)) == [
        "c.py", "d.py", "pkg/__init__.py", "pkg/a.py", "pkg/b.py",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        "importlib.import_module(name)", "__import__(name)", "exec(text)",
        "sys.path.insert(0, folder)", "importlib.util.spec_from_file_location(name, file)",
        "runpy.run_path(file)", "torch.hub.load('a/b', 'c')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "torch.utils.cpp_extension.load(name='k', sources=['k.cu'])",
    ],
)  # fmt: skip
def test_a_call_that_runs_code_which_no_statement_names_is_listed_by_its_place(tmp_path, call):
    (tmp_path / "model.py").write_text(f"def f(name):\n    return {call}\n")
    (place,) = read_source("model", folder=tmp_path).unfollowed
    assert place.startswith("model.py, line 2: ")


def test_a_file_nested_more_deeply_than_a_tree_can_be_counts_by_its_text(tmp_path):
    (tmp_path / "model.py").write_text("x = " + " + ".join(["1"] * 20_000) + "\n")
    before = source_digests("model", folder=tmp_path)
    with (tmp_path / "model.py").open("a") as stream:
        stream.write("# a remark\n")
    assert before != source_digests("model", folder=tmp_path)


def test_a_package_that_is_mapped_to_a_folder_of_another_name_is_followed(tmp_path, monkeypatch):
    """As `pip install -e` does it for `package-dir`: by a finder of its own."""
    from importlib.machinery import ModuleSpec, SourceFileLoader

    place = tmp_path / "lib"
    place.mkdir()
    (place / "__init__.py").write_text("")
    (place / "deep.py").write_text("")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "mapped_of_test":
                return None
            file = str(place / "__init__.py")
            spec = ModuleSpec(name, SourceFileLoader(name, file), origin=file, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.py").write_text("from mapped_of_test import deep\n")
    assert list(source_digests("model", folder=folder)) == [
        "mapped_of_test/__init__.py", "mapped_of_test/deep.py", "model.py",
    ]  # fmt: skip


def test_a_folder_that_packages_were_installed_into_holds_no_code_of_the_users(
    tmp_path, monkeypatch
):
    """As `pip install --target` does it, beside which no name says so."""
    target = tmp_path / "libraries"
    (target / "library_of_test-1.0.dist-info").mkdir(parents=True)
    (target / "library_of_test.py").write_text("")
    monkeypatch.syspath_prepend(str(target))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.py").write_text("import library_of_test\n")
    source = read_source("model", folder=folder)
    assert list(source.digests) == ["model.py"]
    assert source.packages == {"library_of_test"}
