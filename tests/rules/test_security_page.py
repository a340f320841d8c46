"""The page on security: each of its promises has a test that is there."""

import ast

import pytest
from support.pages import DOCS, ROOT, rows

PROMISES = rows(DOCS["security.md"], "promise")


@pytest.mark.parametrize(("promise", "against", "test"), PROMISES, ids=[row[0] for row in PROMISES])
def test_each_promise_names_a_test_that_is_there(promise, against, test):
    assert against in {"accident", "malice"}
    path, _, name = test.strip("`").partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, promise


def test_each_thing_that_others_may_write_to_has_its_promises():
    things = " ".join(row[2] for row in PROMISES)
    for place in ("tests/data/store/", "tests/tasks/config/", "tests/flows/servers/", "deployment"):
        assert place in things
