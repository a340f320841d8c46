"""Importance, suspects of wrong labels, shares and phases: the rules, one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.numbers.random_observations import observations
from support.runs.policy_runs import config_of, context_of, course, learned, mined, planned

from epochal.data.config.loader import SamplingConfig
from epochal.data.errors import TargetError
from epochal.data.mining.plan import plan_epoch
from epochal.data.policies.importance import keep_probability
from epochal.data.policies.seta import loss_groups
from epochal.data.policies.shared.label_noise import noise_rate
from epochal.data.policies.shared.pool import PlanContext
from epochal.data.samples.table import FLAG_SUSPECT


@given(
    st.lists(st.floats(0.05, 2), min_size=2, max_size=40),
    st.floats(0.01, 0.9),
    st.floats(0.01, 0.99),
)
def test_probabilities_have_the_budget_as_their_sum_and_follow_the_score(worth, least, share):
    worth = np.array(worth)
    found = keep_probability(worth, total=share * len(worth), least=least).astype(float)
    wanted = max(share, least) * len(worth)
    assert found.sum() == pytest.approx(wanted, rel=1e-5)
    assert found.min() >= least * (1 - 1e-6)
    assert found.max() <= 1
    assert (np.diff(found[np.argsort(worth, kind="stable")]) >= 0).all()


def test_the_kept_share_is_the_budget_of_each_epoch():
    config = config_of("importance", budget=0.85, budget_end=0.3)
    found = course(config, count=20_000, epochs=15)
    wanted = np.linspace(0.85, 0.3, 14)
    assert np.abs(found.shares - wanted).max() < 0.05
    mean = (1 + found.shares.sum()) / 15
    assert mean == pytest.approx(0.603, abs=0.005)


def test_hard_samples_come_more_often_and_weigh_less():
    found = course(config_of("importance", budget=0.4, max_weight=4), count=5000, epochs=12)
    seen = np.sum(found.keeps[2:], axis=0)
    hard = np.arange(5000) % 10 == 9
    assert seen[hard].mean() > 2 * seen[np.arange(5000) % 10 == 0].mean()
    keep, weight = found.keeps[5], found.weights[5]
    assert weight[keep & hard].mean() < weight[keep & (np.arange(5000) % 10 == 0)].mean()


def test_nobody_waits_for_longer_than_one_over_the_least_probability():
    config = config_of("importance", budget=0.25, budget_end=0.25, min_probability=0.2, revisit=99)
    found = course(config, count=3000, epochs=30)
    assert found.longest_absence.max() <= 5


def test_weighted_sums_over_the_epochs_count_everybody_alike():
    """Unbiased: over many epochs of frozen scores each sample weighs the same."""

    def frozen(ids, *, seed, epoch, labels):
        return learned(ids, seed=seed, epoch=4, labels=labels)

    config = config_of("importance", budget=0.6, budget_end=0.6, max_weight=9)
    found = course(config, count=2000, epochs=60, observe=frozen)
    total = sum(keep * weight for keep, weight in zip(found.keeps, found.weights, strict=True))
    by_hardness = [total[np.arange(2000) % 10 == hard].mean() for hard in range(10)]
    assert max(by_hardness) / min(by_hardness) < 1.1


def test_credit_is_carried_from_table_to_table_and_full_epochs_cost_none():
    config = config_of("importance", warm_up=3)
    found = course(config, count=300, epochs=8)
    first, second = found.tables[:2]  # epochs 1 and 2 are full
    assert first["credit"].tobytes() == second["credit"].tobytes()
    assert (first["probability"] == 1).all()
    late, later = found.tables[4:6]
    grown = late["credit"].astype(float) + late["probability"] - late["keep"]
    assert np.allclose(later["credit"], grown, atol=1e-6)
    assert ((later["credit"] >= 0) & (later["credit"] <= 1)).all()


def with_noise(share, *, count=4000, seed=3):
    """What is seen of samples of which a share has a wrong label: sure, and not of the label."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(count) < share
    columns = observations(np.arange(count), labels=np.arange(count) % 5)
    columns["confidence"] = rng.uniform(0.5, 1, count).astype(np.float32)
    columns["correct"] = ~wrong
    columns["margin"] = np.where(wrong, -3, 3).astype(np.float32)
    columns["margin"] += rng.normal(size=count).astype(np.float32) / 4
    return columns, wrong


@pytest.mark.parametrize("share", [0.0, 0.07, 0.2])
def test_wrong_labels_are_counted_found_and_left_out(share):
    columns, wrong = with_noise(share)
    config = config_of("random", budget=1.0, label_noise="drop", noise_from=1, warm_up=0)
    table = mined(config, columns, count=4000)
    assert noise_rate(table.columns) == pytest.approx(share, abs=0.02)
    plan, after = planned(table, config, context_of(config, 1))
    suspects = (after["flags"] & FLAG_SUSPECT) > 0
    assert (plan.keep_N == ~suspects).all()
    assert abs(int(suspects.sum()) - int(wrong.sum())) < 0.02 * 4000
    if share:
        assert wrong[suspects].mean() > 0.85


def test_the_number_of_suspects_is_frozen_and_who_they_are_is_not():
    columns, _ = with_noise(0.1)
    config = config_of("random", budget=1.0, label_noise="drop", noise_from=1)
    _, table = planned(mined(config, columns, count=4000), config, context_of(config, 1))
    before = (table["flags"] & FLAG_SUSPECT) > 0
    columns["correct"][:] = True
    columns["margin"] = np.roll(columns["margin"], 1) * 2
    table = mined(config, columns, count=4000, previous=table, epoch=1)
    frozen = PlanContext(epoch=9, full=False, seed=7, budget=1.0, noise="frozen")
    _, later = planned(table, config, frozen)
    now = (later["flags"] & FLAG_SUSPECT) > 0
    assert now.sum() == before.sum()
    assert (now != before).any()
    estimated = PlanContext(epoch=2, full=False, seed=7, budget=1.0, noise="estimate")
    assert planned(table, config, estimated)[0].keep_N.all()


def test_without_classes_no_label_is_suspected():
    columns, _ = with_noise(0.1)
    for name in ("confidence", "margin", "p_true", "el2n"):
        columns[name] = np.full(4000, np.nan, dtype=np.float32)
    table = mined(config_of("random"), columns, count=4000)
    assert noise_rate(table.columns) is None


def test_random_keeps_exactly_the_shares_of_another_run():
    shares = [1.0, 0.61, 0.4, 0.25]
    config = config_of("random by shares", shares=shares)
    found = course(config, count=1000, epochs=7)
    assert found.shares.tolist() == [0.61, 0.4, 0.25, 0.25, 0.25, 0.25]
    one, other = (course(config, count=1000, epochs=4, seed=seed).keeps[0] for seed in (1, 2))
    assert one.tolist() != other.tolist()


def test_seta_groups_are_of_like_losses_and_the_window_moves_on():
    loss = np.concatenate([np.full(50, 0.1), np.full(30, 1.0), np.full(20, 5.0)])
    assert np.bincount(loss_groups(loss, groups=3)).tolist() == [50, 30, 20]
    config = config_of("seta", groups=3, window=0.34, budget=1.0, warm_up=0, final_full=0)
    columns = observations(np.arange(100), labels=np.zeros(100, int))
    columns["loss"] = loss.astype(np.float32)
    table = mined(config, columns, count=100)
    kept = [
        set(
            loss[planned(table, config, PlanContext(epoch=epoch, full=False, seed=7, budget=1.0))[
                0
            ].keep_N].tolist()
        )
        for epoch in (1, 2, 3, 4)
    ]  # fmt: skip
    assert kept[0] == {0.1} | ({5.0, 1.0} if config.floor > 0.5 else set())
    assert 1.0 in kept[1]
    assert 5.0 in kept[2]
    assert kept[3] == kept[0]


def test_the_budget_reaches_its_end_in_the_last_epoch_that_is_not_full():
    config = SamplingConfig(policy="hard_mining", budget=0.8, budget_end=0.4, final_full=2)
    found = [config.phase(epoch, epochs=9).budget for epoch in range(9)]
    assert found[0] is found[7] is found[8] is None
    assert found[1] == 0.8
    assert found[6] == 0.4
    assert config.phase(9, epochs=9).budget == 0.4  # as if the run went on
    hidden = [
        round(1 - SamplingConfig(policy="kakurenbo", final_full=0).phase(e, epochs=9).budget, 6)
        for e in range(1, 9)
    ]
    assert sorted(set(hidden)) == [0.12, 0.18, 0.24, 0.3]
    pace = SamplingConfig(policy="curriculum", final_full=0)
    assert [pace.phase(e, epochs=11).budget for e in (1, 3, 6, 10)] == pytest.approx(
        [0.3, 0.3 + 0.7 * 4 / 9, 1, 1]
    )


@given(st.integers(2, 40), st.integers(0, 20))
def test_a_flat_budget_knows_nothing_of_the_length_of_the_run(epochs, more):
    config = SamplingConfig(policy="importance", budget=0.5)
    for epoch in range(epochs):
        assert config.phase(epoch, epochs=epochs) == config.phase(epoch, epochs=epochs + more)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"policy": "easy_skip", "budget": 0.5}, "budget: policy easy_skip does not go by it"),
        ({"policy": "importance", "confidence": 0.8}, "confidence: policy importance"),
        ({"policy": "random", "max_weight": 3}, "it is of importance, infobatch, custom"),
        ({"policy": "random", "shares": [0.5], "budget": 0.5}, "shares: they stand for"),
        ({"policy": "custom"}, "target: policy custom needs one"),
        ({"policy": "importance", "target": "a:b"}, "target: policy importance"),
    ],
)
def test_a_setting_of_another_policy_is_refused_and_says_whose_it_is(fields, named):
    with pytest.raises(ValidationError, match=named):
        SamplingConfig(**fields)


def test_a_policy_is_switched_off_with_its_settings_left():
    assert SamplingConfig(policy="none", budget=0.5, confidence=0.8).policy == "none"


@pytest.mark.parametrize(("rule", "size"), [("fixed", 64), ("sqrt", 32), ("proportional", 16)])
def test_micro_batches_follow_the_kept_share(rule, size):
    config = SamplingConfig(policy="easy_skip", batch=rule)
    assert config.batch_size(64, kept=25, total=100) == size
    assert config.batch_size(64, kept=100, total=100) == 64
    assert config.batch_size(1, kept=1, total=100) == 1


@given(st.integers(2, 70), st.integers(2, 500), st.sampled_from(["fixed", "sqrt", "proportional"]))
def test_no_policy_leaves_a_batch_of_a_single_sample(size, kept, rule):
    config = SamplingConfig(policy="easy_skip", batch=rule)
    found = config.batch_size(size, kept=kept, total=10_000)
    assert found > 1
    assert kept % found != 1
    if rule == "fixed":
        assert size <= found <= size + 8


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "it gave a NoneType"),
        ((np.ones(3, bool), np.ones(3)), "keep_N is bool of shape"),
        ((np.ones(20), np.ones(20)), "keep_N is float64"),
        ((np.ones(20, bool), np.full(20, -1.0)), "weight of sample 0 is -1"),
        ((np.ones(20, bool), np.full((20, 1), 1.0)), "weight_N is float64 of shape"),
    ],
)
def test_what_is_no_plan_of_a_users_policy_is_named(given, named):
    config = config_of("custom", warm_up=0)
    table = mined(config, observations(np.arange(20)), count=20)
    with pytest.raises(TargetError, match=named):
        plan_epoch(table, context_of(config, 1), config, own=lambda *_: given)
