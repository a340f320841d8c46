"""Names in MLflow: as they are where it takes them, readable where not, and never two as one."""

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epochal.tasks.tracking.names import MAX_CHARS, _folded, mlflow_name, mlflow_names

NEAR = st.text(alphabet="aA/._-: <>@+é\u0301\n", max_size=8)
"""Texts that differ in little, and are hard."""
TEXTS = st.one_of(NEAR, st.text(max_size=300))


@pytest.mark.parametrize(
    "name",
    ["train/loss", "gradients/norm/layer.0.weight", "validation/top-5 accuracy", "Größe", "a"],
)
def test_what_mlflow_takes_stays_as_it_is(name):
    assert mlflow_name(name) == name
    assert mlflow_names([name]) == {name: name}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("validation/score_<10", "validation/score_:lt:10"),
        ("validation/recall@5", "validation/recall:at:5"),
        ("gradients/norm/a+b", "gradients/norm/a:plus:b"),
        ("a:b", "a:colon:b"),
        ("猫🦊", "猫:u1f98a:"),
        ("../x", ":dot:./x"),
        ("..x", ":dot:.x"),
        ("..:", ":dot:.:colon:"),
        ("a//b", "a/:empty:/b"),
        (" a ", ":space:a:space:"),
        ("", ":empty:"),
    ],
)
def test_what_mlflow_refuses_is_written_out(name, shown):
    assert mlflow_name(name) == shown


@settings(deadline=None)  # the first example imports MLflow
@given(TEXTS)
@example("x" * 300)
@example("..x")
@example(".." * 150)
@example("/" * 300)
@example("x/." * 100)
def test_mlflow_takes_every_name(text):
    from mlflow.utils.validation import _validate_metric_name, _validate_param

    for name in (mlflow_name(text), mlflow_names([text, text.swapcase()])[text]):
        assert len(name) <= MAX_CHARS
        _validate_metric_name(name)
        _validate_param(name, "1")


@given(st.sets(TEXTS, min_size=2, max_size=8))
@example({"a" * 300 + "x", "a" * 300 + "y"})
@example({"a<b", "a:lt:b"})
@example({"é", "e\u0301", "e", "E", "É"})
@example({"ﬁ", "fi", "FI"})
@example({"K", "k", "\u212a"})
def test_two_names_never_become_one(texts):
    assert len({mlflow_name(text) for text in texts}) == len(texts)
    names = mlflow_names(texts)
    assert len({_folded(name) for name in names.values()}) == len(texts)


@given(st.text(alphabet=string.ascii_letters + string.digits + "_.-/", min_size=1, max_size=40))
def test_a_name_alone_is_the_same_whatever_stands_beside_it(text):
    assert mlflow_names([text, "another name"])[text] == mlflow_name(text)
