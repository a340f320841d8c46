"""From `module:attr` to a call; each failure says whose it is."""

import importlib
import sys
import textwrap

import pytest
import torch

from epochal.data.errors import TargetError
from epochal.data.types import Target
from epochal.tasks.user_code.targets import call_target, resolve_target, with_nested


@pytest.fixture(autouse=True)
def clean_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def error_of(folder, target, **args):
    with pytest.raises(TargetError) as caught:
        call_target(Target(target=target, args=args), field="model", folder=folder)
    return str(caught.value)


def test_a_users_module_is_found_beside_the_config(tmp_path):
    (tmp_path / "model.py").write_text("def make(width):\n    return width * 2\n")
    target = Target(target="model:make", args={"width": 21})
    assert call_target(target, field="model", folder=tmp_path) == 42


def test_two_folders_with_modules_of_one_name_do_not_mix(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text("from helper import x\ndef make(): return x\n")
        (tmp_path / name / "helper.py").write_text(f"x = {name!r}\n")
    target = Target(target="model:make")
    for name in ("a", "b", "a"):
        assert call_target(target, field="model", folder=tmp_path / name) == name


def test_an_edited_module_is_imported_again(tmp_path):
    file = tmp_path / "model.py"
    file.write_text("def make(): return 1\n")
    target = Target(target="model:make")
    assert call_target(target, field="model", folder=tmp_path) == 1
    file.write_text("def make(): return 'edited'\n")
    assert call_target(target, field="model", folder=tmp_path) == "edited"


@pytest.mark.parametrize("by_another", [False, True])
def test_what_a_function_imports_once_it_is_called_is_that_of_now(by_another, tmp_path):
    (tmp_path / "model.py").write_text("def make():\n    from late import x\n    return x\n")
    target = Target(target="model:make")
    for text in ("1", "'edited'", "'edited twice'"):
        (tmp_path / "late.py").write_text(f"x = {text}\n")
        made = resolve_target(target, field="model", folder=tmp_path)
        if by_another:  # as in a notebook
            importlib.import_module("late")
        assert repr(made()) == text


@pytest.mark.parametrize("name", ["data", "tasks", "engine", "flows"])
def test_users_modules_may_be_called_as_ours_are(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("def make(): return 'mine'\n")
    found = resolve_target(Target(target=f"{name}:make"), field="model", folder=tmp_path)
    assert found() == "mine"


def test_a_relative_path_in_args_is_relative_to_the_folder(tmp_path):
    (tmp_path / "model.py").write_text("def make(path, word): return path, word\n")
    target = Target(target="model:make", args={"path": "./images", "word": "images"})
    assert call_target(target, field="model", folder=tmp_path) == (
        str(tmp_path / "images"),
        "images",
    )


@pytest.mark.parametrize(
    ("source", "target", "args", "words"),
    [
        (None, "nothing_there:f", {}, ["model.target", "no module 'nothing_there'"]),
        ("import not_installed_xyz\n", "m:f", {}, ["importing 'm' failed", "not_installed_xyz"]),
        ("1/0\n", "m:f", {}, ["ZeroDivisionError", "m.py, line 1"]),
        ("def make(): pass\n", "m:mak", {}, ["no 'mak'", "'make'"]),
        ("f = 3\n", "m:f", {}, ["is a int", "called"]),
        ("def f(a): pass\n", "m:f", {"b": 1}, ["model.args", "refuses", "(a)"]),
        ("def f(): raise ValueError('width is odd')\n", "m:f", {}, ["ValueError: width is odd"]),
    ],
)
def test_an_error_says_whose_it_is(tmp_path, source, target, args, words):
    if source is not None:
        (tmp_path / "m.py").write_text(source)
    text = error_of(tmp_path, target, **args)
    for word in words:
        assert word in text


def test_a_file_whose_name_is_taken_is_refused(tmp_path):
    (tmp_path / "json.py").write_text("def f(): pass\n")
    assert "rename the file" in error_of(tmp_path, "json:f")


# Targets inside args

PAIR = "def pair(a=None, b=None): return (a, b)\ndef two(): return 2\n"


def nested(name, **args):
    return {"target": f"m:{name}", "args": args}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"target": "m:two"}, 2),
        (nested("pair", a=nested("two"), b="./x"), (2, "{folder}/x")),
        ([1, nested("two"), [nested("two")]], [1, 2, [2]]),
        (
            {"x": nested("two"), "y": {"z": [nested("pair", a=1)]}},
            {"x": 2, "y": {"z": [(1, None)]}},
        ),
        ({"target": "accuracy", "weight": 3}, {"target": "accuracy", "weight": 3}),
        ({"target": 3}, {"target": 3}),
    ],
)
def test_a_target_inside_args_is_called_and_other_mappings_are_passed_on(tmp_path, given, made):
    (tmp_path / "m.py").write_text(PAIR)
    target = Target(target="m:pair", args={"b": given})
    found = call_target(target, field="model", folder=tmp_path)
    assert repr(found) == repr((None, made)).replace("{folder}", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": "m:nothing"}, "model.args.a.target: 'm:nothing': m has no 'nothing'"),
        ([nested("two", c=1)], "model.args.a[0].args: 'm:two' refuses them"),
        ({"x": {"target": "m:two", "arg": {}}}, "model.args.a.x: 'm:two' is a target"),
        ({"target": "m:two", "args": [1]}, "found `args` [1]; expected {target: …, args: {…}}"),
    ],
)
def test_an_error_of_a_target_inside_args_names_its_place(tmp_path, given, words):
    (tmp_path / "m.py").write_text(PAIR)
    assert words in error_of(tmp_path, "m:pair", a=given)


def test_all_targets_are_told_with_their_places():
    inner = nested("two")
    target = Target(target="m:pair", args={"a": nested("pair", a=[inner]), "b": {"x": inner}})
    assert [(place, one.target) for place, one in with_nested(target, field="model")] == [
        ("model", "m:pair"),
        ("model.args.a", "m:pair"),
        ("model.args.a.args.a[0]", "m:two"),
        ("model.args.b.x", "m:two"),
    ]


# What a signature does not tell


def test_a_class_that_shows_another_signature_than_it_has_is_called(tmp_path):
    (tmp_path / "m.py").write_text(
        "import inspect\n"
        "class Config:\n"
        "    def __init__(self, **options): self.options = options\n"
        "    __signature__ = inspect.Signature()\n"
    )
    target = Target(target="m:Config", args={"labels": 2})
    assert call_target(target, field="model", folder=tmp_path).options == {"labels": 2}


def test_a_type_error_inside_the_function_is_not_taken_for_a_wrong_call(tmp_path):
    (tmp_path / "m.py").write_text("def make(a): return a + 'x'\n")
    message = error_of(tmp_path, "m:make", a=1)
    assert "model: 'm:make' raised TypeError" in message
    assert "m.py, line 1" in message


def test_a_module_whose_lazy_import_fails_says_what_is_missing(tmp_path):
    (tmp_path / "m.py").write_text(
        "def __getattr__(name):\n"
        "    try:\n"
        "        import not_installed_xyz\n"
        "    except ImportError as error:\n"
        "        raise ModuleNotFoundError('could not import Bert') from error\n"
    )
    message = error_of(tmp_path, "m:Bert")
    assert "getting 'Bert' raised ModuleNotFoundError: could not import Bert" in message
    assert "not_installed_xyz" in message


TAKES = """
    from __future__ import annotations
    import typing
    import torch
    from torch import Tensor

    class Loss:
        def __init__(self, weight: typing.Optional[Tensor] = None, *, many: Tensor | None = None,
                     plain: torch.Tensor = None, sizes: list[int] = (), either: Tensor | float = 0,
                     untold=None):
            self.got = dict(weight=weight, many=many, plain=plain, sizes=sizes, either=either,
                            untold=untold)

    def function(scale: Tensor):
        return scale

    def broken(scale: Nowhere):
        return scale
"""


def test_numbers_become_a_tensor_where_the_signature_wants_one_and_nowhere_else(tmp_path):
    (tmp_path / "takes.py").write_text(textwrap.dedent(TAKES))
    args = {
        "weight": [1, 5, 1], "many": [[1, 2.5], [3, 4]], "plain": 2, "sizes": [1, 2],
        "either": [1], "untold": [3],
    }  # fmt: skip
    made = call_target(Target(target="takes:Loss", args=args), field="loss", folder=tmp_path)
    got = made.got
    for name in ("weight", "many", "plain"):
        assert torch.equal(got[name], torch.tensor(args[name], dtype=torch.float32)), name
    assert {name: got[name] for name in ("sizes", "either", "untold")} == {
        name: args[name] for name in ("sizes", "either", "untold")
    }
    for name, value in (("function", True), ("function", [[1], [1, 2]]), ("broken", [1])):
        target = Target(target=f"takes:{name}", args={"scale": value})
        assert call_target(target, field="loss", folder=tmp_path) == value


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("CrossEntropyLoss", {"weight": [1, 5, 1]}),
        ("NLLLoss", {"weight": [1, 5, 1]}),
        ("BCEWithLogitsLoss", {"pos_weight": [1, 2, 3], "weight": [0.5, 1, 1]}),
        ("BCEWithLogitsLoss", {"pos_weight": 3}),
        ("BCELoss", {"weight": 2.0}),
        ("MultiMarginLoss", {"weight": [1, 5, 1]}),
        ("MultiLabelSoftMarginLoss", {"weight": [1, 5, 1]}),
    ],
)
def test_weights_of_torchs_losses_are_written_as_lists(name, args, tmp_path):
    made = call_target(Target(target=f"torch.nn:{name}", args=args), field="loss", folder=tmp_path)
    for key, value in args.items():
        assert torch.equal(getattr(made, key), torch.tensor(value, dtype=torch.float32))
    whole = name in {"CrossEntropyLoss", "NLLLoss", "MultiMarginLoss"}
    target = torch.tensor([0, 1]) if whole else torch.ones(2, 3)
    assert torch.isfinite(made(torch.full((2, 3), 0.5), target))
