"""Histories as data: drawn from a seed, judged by what they leave, shrunk to what still fails."""

import copy
import random
from dataclasses import replace

import pytest
import yaml
from support.histories import draw
from support.histories.draw import (
    FAULTS,
    MAX_FAULTS,
    MAX_LIVES,
    SEEDS_OF_A_CONFIG,
    drawn,
    drawn_config,
    ends,
)
from support.histories.history import Ending, Fault, History, Life, WayLeft
from support.histories.judge import differences
from support.histories.project import history_project
from support.histories.shrink import shrunk

from epochal.tasks.config.load import load_config

SEEDS = 2000


@pytest.fixture(scope="module")
def histories():
    return [drawn(seed) for seed in range(SEEDS)]


def test_each_config_is_one_that_the_product_takes(tmp_path):
    project = history_project(tmp_path, drawn_config(0))
    whole = yaml.safe_load(project.config.read_text())
    fixed = {name: value for name, value in whole.items() if name not in drawn_config(0)}
    for number in range(SEEDS // SEEDS_OF_A_CONFIG):
        project.config.write_text(yaml.safe_dump({**fixed, **drawn_config(number)}))
        load_config(project.config)


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("batches", draw.BATCHES),
        ("schedule", draw.SCHEDULES),
        ("ema", draw.EMAS),
        ("mixing", draw.MIXING),
        ("averaging", draw.AVERAGING),
        ("early_stopping", {"none": None, "given": {"patience": 1, "start": 1}}),
    ],
)
def test_each_choice_is_drawn(field, choices, histories):
    given = [history.config.get(field) for history in histories]
    assert [name for name, value in choices.items() if value not in given] == []


def test_each_policy_is_drawn(histories):
    given = [history.config["sampling"] for history in histories]
    for name, settings in draw.SAMPLING.items():
        assert any(settings.items() <= one.items() for one in given), name


def test_each_number_that_is_drawn_from_a_few_comes():
    configs = [drawn_config(number) for number in range(SEEDS // SEEDS_OF_A_CONFIG)]
    assert {one["gradients"]["accumulate"] for one in configs} == {1, 2, 3, 4}
    assert {one["gradients"]["shards"] for one in configs} == {1, 2, 4}
    assert {one["loader"]["workers"] for one in configs} == {0, 2}
    assert {one["precision"]["dtype"] for one in configs} == {"float32", "bfloat16", "float16"}
    assert {one["epochs"] for one in configs} == {2, 3, 4}


def test_each_fault_and_each_company_is_drawn(histories):
    faults = [fault for history in histories for _, fault in history.faults]
    wanted = {(where, kind) for where, kinds in FAULTS.items() for kind in kinds}
    assert {(one.where, one.kind) for one in faults} == wanted
    assert {one.count for one in faults} == {1, 2, 3, draw.LASTING}
    assert all(0 <= one.at < 1 for one in faults)
    assert {len(history.faults) for history in histories} == set(range(1, MAX_FAULTS + 1))
    assert {len(history.lives) for history in histories} == set(range(1, MAX_LIVES + 1))
    lives = [life for history in histories for life in history.lives]
    assert {what for life in lives for what, _ in life.beside} == set(draw.BESIDE)
    assert {life.processes for life in lives} == {1, 2, 3}
    assert {fault.rank for fault in faults} == {0, 1, 2}


def test_no_more_processes_than_shards(histories):
    for history in histories:
        shards = history.config["gradients"]["shards"]
        assert all(life.processes <= shards for life in history.lives)


def test_a_seed_gives_one_history_and_its_config_is_that_of_its_neighbours(histories):
    assert drawn(77) == histories[77]
    assert histories[60].config == histories[79].config != histories[80].config
    assert histories[60].lives != histories[61].lives


def test_a_history_is_read_as_it_was_written(histories):
    for history in histories[:100]:
        assert History.load(history.dump()) == history


FOUND = {
    "problems": [],
    "digests": {"train/0/model": "a", "train/1/model": "b"},
    "records": {"key": {"loss": 0.5}},
    "objects": ["stages/key/a", "stages/key/record.json"],
    "points": [12, "digest"],
    "damaged": [],
    "twice": [],
    "changed": [],
}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ({"problems": ["a is damaged"]}, "verify: a is damaged"),
        ({"digests": {"train/0/model": "a"}}, "train/1/model is missing"),
        (
            {"digests": {**FOUND["digests"], "mine/0/samples": "c"}},
            "mine/0/samples is one too many",
        ),
        ({"digests": {**FOUND["digests"], "train/0/model": "c"}}, "model is c, expected a"),
        ({"records": {"key": {"loss": 0.25}}}, "key is {'loss': 0.25}, expected {'loss': 0.5}"),
        ({"records": {}}, "records: key is missing"),
        ({"objects": ["stages/key/record.json"]}, "objects: stages/key/a is missing"),
        ({"objects": [*FOUND["objects"], "stages/b"]}, "objects: stages/b is one too many"),
        ({"points": [11, "other"]}, "points: [11, 'other'], expected [12, 'digest']"),
        ({"damaged": ["stages/a was set aside: why"]}, "damaged: stages/a was set aside: why"),
        ({"twice": ["loss at update 3"]}, "loss at update 3 comes twice"),
        ({"changed": ["loss at update 3"]}, "loss at update 3 was another one before"),
    ],
)
def test_each_difference_is_told(what, told):
    (found,) = differences(FOUND, {**FOUND, **what})
    assert told in found


def test_after_a_disk_has_lied_something_may_be_damaged():
    found = {**FOUND, "damaged": ["stages/key/a was set aside: why"]}
    assert differences(FOUND, found, lied=True) == ()


def test_equal_ends_do_not_differ():
    assert differences(FOUND, copy.deepcopy(FOUND)) == ()


def test_what_differs_does_not_end_or_breaks_is_not_right():
    assert Ending().right
    assert not Ending(differs=("a",)).right
    assert not Ending(whole=False).right
    assert not Ending(broken="Traceback").right


def needs(history, *, kinds, field=None):
    """Whether it has faults of all these kinds, in that order, and that field of the config."""
    found = iter(fault.kind for _, fault in history.faults)
    return all(kind in found for kind in kinds) and (field is None or field in history.config)


@pytest.mark.parametrize("seed", range(5))
def test_a_failing_history_is_shrunk_to_what_its_failure_needs(seed):
    random_lives = random.Random(seed).sample([drawn(one).lives for one in range(200)], 2)
    wanted = (Life(1, (Fault("store", "torn", 0.5),)), Life(1, (Fault("disk", "lying", 0.1),)))
    lives = (*random_lives[0], wanted[0], *random_lives[1], wanted[1])
    history = replace(drawn(20), lives=lives, config={**drawn(20).config, "ema": {"decay": 0.9}})
    smallest, tries = shrunk(history, lambda one: needs(one, kinds=("torn", "lying"), field="ema"))
    assert [fault.kind for _, fault in smallest.faults] == ["torn", "lying"]
    assert all(life.faults and not life.beside for life in smallest.lives)
    assert smallest.config["ema"] == {"decay": 0.9}
    assert smallest.config["sampling"] == {"policy": "none"}
    assert "mixing" not in smallest.config
    assert tries <= 200


def test_shrinking_keeps_processes_and_company_that_the_failure_needs():
    lives = (
        Life(2, (Fault("process", "kill", 0.5, rank=1),), (("gc", 0.2), ("second", 0.4))),
        Life(2, (Fault("store", "eio", 0.3, 1000),)),
    )
    config = {**drawn_config(0), "gradients": {"accumulate": 4, "shards": 4, "clip_norm": 1.0}}

    def fails(one):
        return any(life.processes > 1 and ("gc", 0.2) in life.beside for life in one.lives)

    smallest, _ = shrunk(History(1, config, lives), fails)
    assert smallest.lives == (Life(2, (), (("gc", 0.2),)),)
    assert smallest.config["gradients"] == {"accumulate": 1, "shards": 4, "clip_norm": None}


def test_shrinking_ends_after_so_many_tries():
    _, tries = shrunk(drawn(3), lambda _: False, tries=2)
    assert tries == 2


def test_what_is_left_of_the_way_is_never_nothing():
    way = WayLeft({"store": 200, "process": 0})
    assert (way.operations("store"), way.operations("process")) == (200, 0)
    way.take_off({"store": 50})
    assert (way.share("store"), way.operations("store")) == (0.75, 150)
    way.take_off({"store": 500})
    assert way.operations("store") == 20  # a start alone does some


def test_only_a_disk_that_lied_until_then_excuses_damage():
    lying = Life(faults=(Fault("disk", "lying", 0.5),))
    history = History(0, {}, (Life(), lying, Life()))
    assert [history.lied(lives) for lives in range(4)] == [False, False, True, True]


def test_each_life_but_the_last_has_a_fault_that_ends_it():
    for history in map(drawn, range(300)):
        for life in history.lives[:-1]:
            assert any(ends(fault) for fault in life.faults), history
