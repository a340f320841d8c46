"""The runner of planted mistakes: which histories it tries, what it finds, and what it does not."""

from dataclasses import dataclass, field

import pytest
from robustness.by_seed.proof_mutants import FOUND, SURVIVED, TRIES, fits, preferred, run
from support.mutants.mutant import Mutant


@dataclass(frozen=True)
class Planted(Mutant):
    hint: dict = field(default_factory=dict)


@pytest.mark.parametrize(
    "hint",
    [
        {"where": "store", "kind": "flip"},
        {"where": "disk", "kind": "power"},
        {"beside": "gc"},
        {"processes": 2, "where": "store", "kind": "kill"},
    ],
)
def test_histories_are_tried_that_have_what_the_hint_says(hint):
    histories = preferred(hint)
    assert len(histories) == TRIES
    fitting = [one for one in histories if fits(one, hint)]
    assert len(fitting) >= (5 if "kind" in hint else TRIES)
    assert len({str(one.config) for one in histories}) > 5


def test_a_fault_meets_a_recovery_too():
    for history in preferred({"where": "store", "kind": "flip"})[1::2]:
        kinds = [fault.kind for _, fault in history.faults]
        assert (kinds[0], {*kinds[1:]}) == ("kill", {"flip"})
        assert [number for number, _ in history.faults] == [0] + [1] * (len(kinds) - 1)


@pytest.mark.parametrize(("hint", "processes"), [({"unbroken": True}, 1), ({"processes": 2}, 2)])
def test_what_an_unbroken_run_shows_needs_no_faults(hint, processes):
    histories = preferred(hint)
    assert histories
    for history in histories:
        assert (history.faults, [life.processes for life in history.lives]) == ([], [processes])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("new", "state"), [("begin + 1", FOUND), ("begin + 0", SURVIVED)], ids=["mistake", "none"]
)
def test_a_mistake_is_found_and_a_change_without_effect_survives(new, state, capsys):
    old = "start = 0 if resume is None else resume.micro_steps\n"
    text = old.replace("resume.micro_steps", f"resume.micro_steps{new.removeprefix('begin')}")
    hint = {"where": "process", "kind": "kill"}
    mutant = Planted("one", "tasks/stages/train.py", old, text, (), hint)
    assert run([mutant], workers=1) == (state == FOUND)
    assert state in capsys.readouterr().out
