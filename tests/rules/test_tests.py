"""The rules of the tests: each lies with what it tests, and each planted fault can be planted."""

import sys
import types
from collections import Counter

import pytest
from support.mutants import MUTANTS
from support.mutants.of_proof import PROOF_MUTANTS
from support.source_tree import PACKAGES, ROOT

OF_THE_WHOLE_FOLDER = {"data/policies", "flows/servers", "tasks/report"}
"""Folders whose tests may be named after what all of their files do alike."""

FAMILIES = {"mutants", "simulator"}
"""Folders of helpers with a file for each part of one thing: a table, or a simulated world."""

tests = [
    path.relative_to(ROOT / "tests")
    for package in PACKAGES
    for path in sorted((ROOT / "tests" / package).rglob("*.py"))
]


@pytest.mark.parametrize("path", tests, ids=str)
def test_a_test_lies_in_the_folder_of_its_source_and_begins_with_its_name(path):
    folder = ROOT / path.parent
    assert (folder / "__init__.py").is_file(), f"{path.parent}: the source has no such folder"
    names = {folder.name, *(source.stem for source in folder.glob("*.py"))}
    about = path.stem.removeprefix("test_")
    assert path.parent.as_posix() in OF_THE_WHOLE_FOLDER or any(
        about == name or about.startswith(f"{name}_") for name in names
    ), f"{path}: expected test_<one of {', '.join(sorted(names))}>[_<what of it>].py"


def test_a_helper_of_one_file_lives_in_that_file():
    used = Counter()
    support = ROOT / "tests" / "support"
    helpers = [
        path
        for path in support.rglob("*.py")
        if path.parent.name not in FAMILIES and path.name != "__init__.py"
    ]
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        for helper in helpers:
            used[helper.stem] += f".{helper.stem} import" in text and helper != path
    assert [name for name, count in used.items() if count < 2] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_can_be_planted(mutant):
    assert mutant.problem(ROOT) is None


@pytest.mark.parametrize("mutant", PROOF_MUTANTS, ids=lambda one: one.name)
def test_a_mutant_of_the_proof_can_be_planted_and_its_file_still_imports(mutant, monkeypatch):
    assert mutant.problem(ROOT) is None
    text = (ROOT / mutant.file).read_text().replace(mutant.old, mutant.new)
    planted = types.ModuleType("planted")
    monkeypatch.setitem(sys.modules, "planted", planted)
    exec(compile(text, mutant.file, "exec"), vars(planted))


def test_mutants_of_the_proof_have_names_of_their_own_and_are_changes():
    assert len({mutant.name for mutant in PROOF_MUTANTS}) == len(PROOF_MUTANTS)
    assert all(mutant.old != mutant.new for mutant in PROOF_MUTANTS)
    assert not {mutant.name for mutant in PROOF_MUTANTS} & {mutant.name for mutant in MUTANTS}


def test_mutants_have_names_of_their_own_and_are_changes():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
