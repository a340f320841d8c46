"""Generations: which plans are one run, and which are a branch."""

import uuid

import pytest
from support.numbers.stage_keys import FACTS, config

from epochal.data.documents import dump_document
from epochal.data.errors import NotFound
from epochal.data.store.open import open_store
from epochal.tasks.runs.run_plans import find_plan, read_plans, record_plan
from epochal.tasks.stages.registry import list_stages

STEP = {"kind": "multi_step", "milestones": [4], "factor": 0.1}
CONSTANT = {"kind": "constant"}


@pytest.fixture
def store():
    return open_store(f"memory://{uuid.uuid4().hex}/store")


def plan(store, **changes):
    made = config(sampling={"policy": "none"}, **changes)
    return record_plan(store, made, FACTS, list_stages(made, FACTS))


def test_a_longer_or_shorter_list_is_the_same_generation(store):
    one = plan(store, schedule=CONSTANT, epochs=3)
    longer = plan(store, schedule=CONSTANT, epochs=5)
    shorter = plan(store, schedule=CONSTANT, epochs=2)
    assert [one.generation, longer.generation, shorter.generation] == [1, 1, 1]
    assert one.identity == longer.identity == shorter.identity


def test_of_the_plans_of_a_generation_one_is_the_beginning_of_the_other_and_no_branch_is(store):
    one = plan(store, schedule=CONSTANT, epochs=3)
    longer = plan(store, schedule=CONSTANT, epochs=6)
    branch = plan(store, schedule=STEP, epochs=6)
    assert len(longer.lineage) == 6
    assert one.lineage == longer.lineage[:3]
    same = [own == other for own, other in zip(branch.lineage, longer.lineage, strict=True)]
    assert same == [True, True, True, True, False, False]


def test_an_average_at_the_end_makes_no_generation_when_the_run_grows(store):
    averaged = {"schedule": CONSTANT, "averaging": {"best": 2}}
    plans = [plan(store, epochs=epochs, **averaged) for epochs in (3, 5)]
    plans.append(plan(store, epochs=5, schedule=CONSTANT))
    assert [one.generation for one in plans] == [1, 1, 1]


@pytest.mark.parametrize("name", ["../x.py", "a/../../x.py", "/etc/x.py", "a//x.py", "x.txt"])
def test_a_plan_that_names_a_source_outside_the_folder_is_not_read(store, name):
    made = plan(store, schedule=CONSTANT).model_dump(mode="json")
    store.delete("runs/run/plans/000001.json")
    made["sources"] = {"model": {name: "a" * 64}}
    store.put_new("runs/run/plans/000001.json", dump_document(made))
    assert read_plans(store, "run") == []


def test_the_same_list_writes_no_second_plan(store):
    plan(store, schedule=CONSTANT)
    plan(store, schedule=CONSTANT)
    assert len(read_plans(store, "run")) == 1


def test_a_branch_is_a_new_generation_that_names_its_origin(store):
    plan(store, schedule=STEP, epochs=8)
    branch = plan(store, schedule={**STEP, "factor": 0.5}, epochs=8)
    assert (branch.generation, branch.branched_from, branch.shared_epochs) == (2, "run@1", 4)


def test_two_branches_of_a_short_plan_are_two_generations(store):
    plan(store, schedule=CONSTANT, epochs=3)
    longer = plan(store, schedule=CONSTANT, epochs=5)
    branch = plan(store, schedule=STEP, epochs=5)
    assert (branch.generation, branch.branched_from, branch.shared_epochs) == (2, "run@1", 4)
    assert branch.identity != longer.identity
    assert plan(store, schedule=CONSTANT, epochs=5).generation == 1
    assert plan(store, schedule=STEP, epochs=5).generation == 2
    assert plan(store, schedule=CONSTANT, epochs=3).generation == 1


def test_a_bare_name_means_the_newest_plan(store):
    plan(store, schedule=CONSTANT, epochs=5)
    plan(store, schedule=STEP, epochs=5)
    assert find_plan(store, "run").generation == 2
    assert find_plan(store, "run@1").generation == 1
    with pytest.raises(NotFound, match="no run 'run@7'"):
        find_plan(store, "run@7")
    with pytest.raises(NotFound, match="NAME@GENERATION"):
        find_plan(store, "run@x")
