"""The simulator can turn red: mistakes planted in the product's code, each found by a history."""

import pytest
from support.histories.history import Fault, History, Life
from support.simulator import run
from support.simulator.planted import Mistake, plant

CONFIG = {
    "seed": 1,
    "epochs": 3,
    "loader": {"batch_size": 4},
    "gradients": {"accumulate": 4, "clip_norm": 1.0},
    "sampling": {"policy": "easy_skip", "confidence": 0.5, "final_full": 0},
    "ema": {"decay": 0.9},
    "checkpoint": {"keep_last": 2, "keep_best": 1},
}
SHARED = {**CONFIG, "gradients": {"accumulate": 4, "shards": 4}}

KILLED = (Life(faults=(Fault("process", "kill", 0.6),)),)
FLIPPED = (
    *KILLED,
    Life(faults=tuple(Fault("store", "flip", place / 14) for place in range(1, 12))),
)
RANK_KILLED_AT_FIRST = (Life(2, (Fault("process", "kill", 0.5, rank=1),)),)
TWO_RANKS = (Life(2),)
LOST_ANSWERS = (Life(faults=tuple(Fault("store", "lost_answer", at / 10) for at in range(3, 10))),)
TRACKER_FAILS = (Life(faults=(Fault("tracker", "unavailable", 0.5, count=3),)),)

MISTAKES = (
    (
        FLIPPED,
        Mistake(
            "the digest of a file is not compared",
            *("data.store.store", "Store.fetch_intact"),
            old="if actual == expected:",
            new="if True:",
            seed=3,
        ),
    ),
    (
        KILLED,
        Mistake(
            "gradients of the update under way are lost by a commit",
            *("tasks.checkpoints.mid_epoch_restore", "restore"),
            old="gradients=of(_GRADIENT),",
            new="gradients={},",
            seed=0,
        ),
    ),
    (
        KILLED,
        Mistake(
            "the optimizer's moments are lost by a commit",
            *("tasks.checkpoints.mid_epoch_restore", "restore"),
            old="optimizer=of(_OPTIMIZER),",
            new="optimizer={name: one * 0 for name, one in of(_OPTIMIZER).items()},",
            seed=0,
        ),
    ),
    (
        KILLED,
        Mistake(
            "steps draw from whatever generator the process has",
            *("engine.loop.epoch", "borrowed_generators"),
            old="yield make_reseed(device)",
            new="yield lambda seed: None",
            seed=0,
        ),
    ),
    (
        KILLED,
        Mistake(
            "the buffer is never freed",
            *("tasks.launch.local", "LocalTrainer.freed"),
            old='self._tell_first({"type": "freed"})',
            new="return",
            seed=0,
        ),
    ),
    (
        RANK_KILLED_AT_FIRST,
        Mistake(
            "a restarted trainer is taken to have the state of the one before",
            *("tasks.launch.local", "LocalTrainer.request"),
            old='body = {**body, "order": {**body["order"], "live": False}}',
            new="pass",
            seed=0,
        ),
    ),
    (
        TWO_RANKS,
        Mistake(
            "ranks decide by themselves whether to commit",
            *("tasks.computing.watch", "EpochWatch.__call__"),
            old="decided = group.exchange.told(decided)",
            new="pass",
            seed=0,
        ),
    ),
    (
        TWO_RANKS,
        Mistake(
            "what ranks have observed is put together in another order",
            *("engine.shards.group", "Group.in_order"),
            old="for of_rank in given for",
            new="for of_rank in given[::-1] for",
            seed=0,
        ),
    ),
    (
        TRACKER_FAILS,
        Mistake(
            "a failed delivery is taken to be done",
            *("tasks.tracking.exporter", "Exporter._send"),
            old="with tracker_lock():",
            new="with suppress(Exception), tracker_lock():",
            seed=0,
        ),
    ),
    (
        KILLED,
        Mistake(
            "retention keeps no checkpoint",
            *("tasks.upkeep", "_kept"),
            old="return kept",
            new="return set()",
            seed=0,
        ),
    ),
    (
        LOST_ANSWERS,
        Mistake(
            "what a lost answer has written is an error",
            *("data.stage_store.stages", "StageStore.put_artifact"),
            old="except FileExistsError:",
            new="except KeyError:",
            seed=0,
        ),
    ),
)


def _history(mistake, lives):
    shared = any(life.processes > 1 for life in lives)
    return History(mistake.seed, SHARED if shared else CONFIG, lives)


@pytest.mark.parametrize(
    ("lives", "mistake"), MISTAKES, ids=[mistake.name for _, mistake in MISTAKES]
)
def test_a_planted_mistake_is_found(lives, mistake, monkeypatch):
    history = _history(mistake, lives)
    run.unbroken_of(history)
    plant(monkeypatch, mistake)
    assert not run.ended(history).right


@pytest.mark.slow
@pytest.mark.parametrize("lives", dict.fromkeys(lives for lives, _ in MISTAKES))
def test_without_a_mistake_each_of_these_ends_right(lives):
    config = SHARED if any(life.processes > 1 for life in lives) else CONFIG
    ending = run.ended(History(0, config, lives))
    assert ending.right, ending
    assert all(ending.reached)
