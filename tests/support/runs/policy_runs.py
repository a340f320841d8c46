"""Runs of a policy over epochs without any training: tables, plans and what came of them."""

from dataclasses import dataclass, field

import numpy as np
from support.numbers.random_observations import observations

from epochal.data.config.loader import SamplingConfig
from epochal.data.mining import plan as mining
from epochal.data.mining.plan import plan_epoch, updated

POLICIES = {
    "easy_skip": {},
    "importance": {},
    "importance by loss": {"policy": "importance", "score": "loss", "budget": 0.4},
    "importance by trust": {"policy": "importance", "score": "trusted_el2n", "budget": 0.4},
    "infobatch": {},
    "kakurenbo": {},
    "cvnets": {"every": 1, "count": 1},
    "seta": {},
    "hard_mining": {"budget": 0.3},
    "selective_backprop": {},
    "curriculum": {},
    "random": {"budget": 0.3},
    "random by shares": {"policy": "random", "shares": [1, 0.7, 0.2, 0.5]},
    "custom": {"target": "mine:plan"},
}
"""Name → settings of a policy."""

WEIGHTED = ("importance", "importance by loss", "importance by trust", "infobatch")


def config_of(name, **fields):
    return SamplingConfig(**{"policy": name.partition(" ")[0], **POLICIES[name], **fields})


def own(table, context):
    """A user's policy: the lower half of the losses rests, the others weigh twice as much."""
    loss = np.nan_to_num(table.columns["loss"], nan=9.0, posinf=9.0)
    keep = loss >= np.median(loss)
    return keep, np.full(len(loss), 2.0)


def context_of(config, epoch, *, epochs=24, seed=7):
    return mining.context_of(config, epoch, epochs=epochs, seed=seed)


def mined(config, columns, *, count, previous=None, epoch=0, seed=7):
    """The table after an epoch with these observations, not yet planned."""
    return updated(previous, columns, config, sample_ids_N=np.arange(count), epoch=epoch, seed=seed)


def planned(table, config, context):
    plan = plan_epoch(table, context, config, own=own)
    return plan, table.with_plan(keep_N=plan.keep_N, weight_N=plan.weight_N, more=plan.more)


def learned(ids, *, seed, epoch, labels):
    """What an epoch sees of samples of which some are learned early and some hardly."""
    columns = observations(ids, seed=seed * 1000 + epoch, labels=labels[ids])
    hard = np.asarray(ids) % 10
    columns["el2n"] = (np.clip(hard / 8 - epoch / 20, 0, 1.4)).astype(np.float32)
    columns["loss"] = columns["el2n"] ** 2 * 2 + np.float32(0.001)
    columns["confidence"] = (1 - columns["el2n"] / 2).astype(np.float32)
    columns["correct"] = columns["el2n"] < 0.7
    columns["margin"] = (2 - 3 * columns["el2n"]).astype(np.float32)
    return columns


@dataclass
class Course:
    """What became of a run: keep and weight by epoch, from epoch 1 on, and its tables."""

    keeps: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    tables: list = field(default_factory=list)

    @property
    def shares(self):
        return np.array([keep.mean() for keep in self.keeps])

    @property
    def longest_absence(self):
        away, longest = np.zeros(len(self.keeps[0]), int), np.zeros(len(self.keeps[0]), int)
        for keep in self.keeps:
            away = np.where(keep, 0, away + 1)
            longest = np.maximum(longest, away)
        return longest


def course(config, *, count=200, epochs=12, seed=7, observe=learned, end=0):
    """The plans of epochs 1 to `epochs` of a run that has so many, and `end` more after them."""
    labels, found, table = np.arange(count) % 3, Course(), None
    ids = np.arange(count)
    for epoch in range(epochs - 1 + end):
        columns = observe(ids, seed=seed % 1000, epoch=epoch, labels=labels)
        table = mined(config, columns, count=count, previous=table, epoch=epoch, seed=seed)
        context = context_of(config, epoch + 1, epochs=epochs, seed=seed)
        plan, table = planned(table, config, context)
        found.keeps.append(plan.keep_N)
        found.weights.append(plan.weight_N)
        found.tables.append(table)
        ids = np.flatnonzero(plan.keep_N)
    return found
