"""What a person writes in `args` is what the target gets, by whatever way it comes."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from epochal.data.hashing import digest
from epochal.data.types import AS_WRITTEN, Frozen, Target, from_json, in_json, in_key

KEYS = st.one_of(
    st.sampled_from(["$ref", "$defs", "__prefect_kind", "epochal:number", "epochal:key:$ref", "a"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
ARGS = st.dictionaries(KEYS, VALUES, max_size=4)


def target(args):
    return Target.model_validate({"target": "m:f", "args": args}, context=AS_WRITTEN)


def keys_of(value):
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from keys_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item)


@given(ARGS)
@example({"spec": {"$ref": "#/$defs/x", "$defs": {"x": 1}}})
@example({"a": {"__prefect_kind": "jinja", "template": "{{ x }}"}, "b": "{{ y }}"})
@example({"a": {"epochal:number": "nan"}, "b": {"epochal:key:$ref": 1}})
@example({"a": [math.nan, -math.inf, [math.inf]], "b": -0.0})
def test_arguments_survive_every_way_to_the_target(args):
    made = target(args)
    assert repr(made.args) == repr(args)
    for dumped in (made.model_dump(), made.model_dump(mode="json")):
        text = json.dumps(dumped, allow_nan=False)
        assert repr(Target.model_validate(json.loads(text)).args) == repr(args)
    assert not {"$ref", "__prefect_kind"} & {*keys_of(in_json(args))}
    assert repr(from_json(in_json(args))) == repr(args)
    digest("test", in_json(args))


@given(ARGS)
def test_arguments_that_differ_are_differently_written(args):
    assert json.dumps(in_json({"a": args})) != json.dumps(in_json({"a": [args]}))
    assert in_json({"a": 1, "b": [0.5, "x", None, {"c": True}]}) == {
        "a": 1, "b": [0.5, "x", None, {"c": True}],
    }  # fmt: skip


class Numbers(Frozen):
    whole: int = 1
    real: float = 1.0
    yes: bool = False
    more: tuple[int, ...] = ()
    either: int | None = None
    pair: dict[str, float] | None = None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("whole", True), ("whole", "2"), ("whole", 2.0), ("whole", 2.5), ("real", "0.1"),
        ("real", True), ("real", math.inf), ("yes", "yes"), ("yes", 1), ("yes", "true"),
        ("more", [1, "2"]), ("more", [True]), ("either", "3"), ("either", False),
        ("pair", {"a": "1"}), ("yes", None), ("whole", None), ("real", 10**400),
    ],
)  # fmt: skip
def test_a_value_is_what_it_is_written_as_and_is_not_turned_into_another(field, value):
    with pytest.raises(ValidationError):
        Numbers(**{field: value})


@pytest.mark.parametrize("value", [{1: 2}, b"x", object(), [{"a": {1}}]])
def test_what_no_config_can_write_is_no_argument(value):
    with pytest.raises(ValidationError, match="cannot be written in a config|is no text"):
        Target(target="m:f", args={"a": value})


def test_a_whole_number_is_a_float_and_a_list_a_tuple():
    made = Numbers(real=3, more=[1, 2], either=4, pair={"a": 1})
    assert (made.real, made.more, made.either, made.pair) == (3.0, (1, 2), 4, {"a": 1.0})
    assert isinstance(made.real, float)


@pytest.mark.parametrize("name", ["a" * 5000 + ":b", "a:" + "b" * 300, "a." * 2000 + "a:b"])
def test_a_target_that_no_file_system_holds_is_refused_in_a_short_line(name):
    with pytest.raises(ValidationError, match="a target of .* characters; expected at most"):
        Target(target=name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"layers": {"tanh": 1, "relu": 2}}, {"layers": {"relu": 2, "tanh": 1}}),
        ({"deep": [{"x": {"b": 1, "a": 2}}]}, {"deep": [{"x": {"a": 2, "b": 1}}]}),
        ({"time": 1700000000.1234}, {"time": 1700000000.1231}),
        ({"rate": 1.0}, {"rate": 1.0000000000001}),
        ({"value": math.nan}, {"value": math.inf}),
    ],
)
def test_arguments_that_the_users_code_can_tell_apart_have_other_keys(one, other):
    assert digest("args", in_key(one)) != digest("args", in_key(other))


def test_the_order_of_arguments_by_name_and_a_numbers_spelling_make_no_other_key():
    assert digest("args", in_key({"a": 0.1, "b": 1})) == digest("args", in_key({"b": 1, "a": 0.10}))
    assert in_key({"lr": 0.003, "options": {"a": 1, "b": 2}}) == {
        "lr": 0.003, "options": {"a": 1, "b": 2},
    }  # fmt: skip
