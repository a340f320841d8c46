"""Mistakes put into the product's code for a test: a piece of a function's text becomes another."""

import importlib
import inspect
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """place: module and name of a function or method. old: its text, which is there once. new:
    what becomes of it. seed: of a history that is not right with it."""

    name: str
    module: str
    place: str
    old: str
    new: str
    seed: int


def plant(monkeypatch, mistake: Mistake) -> None:
    """Until the test ends. Raises AssertionError if the text is not there once."""
    module = importlib.import_module(f"epochal.{mistake.module}")
    owner, name = module, mistake.place
    if "." in mistake.place:
        kind, name = mistake.place.split(".")
        owner = getattr(module, kind)
    before = inspect.getattr_static(owner, name)
    function = before.fget if isinstance(before, property) else before
    function = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(mistake.old) == 1, f"{mistake.name}: {mistake.old!r} is not there once"
    made: dict[str, object] = {}
    code = "from __future__ import annotations\n" + source.replace(mistake.old, mistake.new)
    exec(compile(code, mistake.place, "exec"), function.__globals__, made)
    monkeypatch.setattr(owner, name, made[name])
