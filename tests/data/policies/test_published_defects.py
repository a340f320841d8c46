"""Defects of published samplers, one test each: none may come back."""

import numpy as np
import pytest
import torch
from support.numbers.random_observations import observations
from support.runs.policy_runs import config_of, context_of, course, learned, mined, planned
from support.stores.sample_files import read_samples, write_samples

from epochal.data.policies.shared.pool import PlanContext
from epochal.engine.measure.observe import Observer
from epochal.engine.model.step import StepOutput


def easy(ids, *, seed=0, epoch=0, labels=None):
    columns = observations(ids, labels=np.zeros(len(ids), int) if labels is None else labels[ids])
    columns["correct"][:] = True
    columns["confidence"][:] = 0.99
    return columns


def test_cvnets_an_empty_skip_set_restores_the_whole_epoch():
    """Its loader was only told of a set that was not empty, and kept skipping the old one."""
    config = config_of("cvnets")
    table = mined(config, easy(np.arange(60)), count=60)
    plan, table = planned(table, config, context_of(config, 1))
    assert not plan.keep_N.all()
    hard = easy(np.arange(60))
    hard["correct"][:] = False
    table = mined(config, hard, count=60, previous=table, epoch=1)
    assert planned(table, config, context_of(config, 2))[0].keep_N.all()


def test_cvnets_the_count_survives_a_resume(tmp_path):
    """Its count lived in memory: every restart began from zero."""
    config = config_of("cvnets", count=3)
    table = mined(config, easy(np.arange(20)), count=20)
    _, table = planned(table, config, context_of(config, 1))
    write_samples(table, tmp_path / "t")
    stored = read_samples(tmp_path / "t")
    live, resumed = (
        mined(config, easy(np.arange(20)), count=20, previous=one, epoch=1)
        for one in (table, stored)
    )
    assert resumed["easy_count"].tolist() == live["easy_count"].tolist() == [2] * 20


def test_cvnets_never_skips_everything():
    """It had no floor: on small data it skipped every sample by epoch 12."""
    for name in ("cvnets", "easy_skip", "kakurenbo"):
        found = course(config_of(name, final_full=0), count=300, epochs=25, observe=easy)
        assert found.shares.min() >= 0.1


def test_cvnets_counts_a_sample_once_that_an_epoch_saw_twice():
    """Ranks were filled up with copies, and each copy's verdict was counted."""
    config = config_of("cvnets", count=5)
    table = mined(config, easy(np.array([3, 1, 3, 3])), count=6)
    assert table["easy_count"].tolist() == [0, 1, 0, 1, 0, 0]
    assert table["n_seen"].tolist() == [0, 1, 0, 1, 0, 0]


def test_cvnets_one_verdict_of_another_kind_takes_one_off_and_brings_the_sample_back():
    config = config_of("cvnets", count=2, every=1, warm_up=0, final_full=0)
    table = None
    for epoch in range(2):
        table = mined(config, easy(np.arange(30)), count=30, previous=table, epoch=epoch)
    assert table["easy_count"].tolist() == [2] * 30
    assert not planned(table, config, context_of(config, 2))[0].keep_N.all()
    hard = easy(np.arange(30))
    hard["correct"][:] = False
    table = mined(config, hard, count=30, previous=table, epoch=2)
    assert table["easy_count"].tolist() == [1] * 30
    assert planned(table, config, context_of(config, 3))[0].keep_N.all()


def test_cvnets_lookups_cost_the_same_however_many_samples_are_skipped():
    """Each lookup went through a list of all skipped ids: some 880 s an update at 1.28 M."""
    config = config_of("cvnets")
    table = mined(config, easy(np.arange(200_000)), count=200_000)
    _, table = planned(table, config, context_of(config, 1))
    ids = np.arange(200_000)[::-1]
    assert table.keep_by_id(ids).tolist() == table["keep"][::-1].tolist()


@pytest.mark.parametrize("sample", [2**24 + 1, 1_281_167, 2**53 - 1])
def test_infobatch_large_ids_survive(sample, tmp_path):
    """It gathered ids and losses as floats: 16777217 became 16777216."""
    observer = Observer()
    logits = torch.randn(2, 3)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    observer.take(np.array([sample, 5]), StepOutput(loss, logits), torch.tensor([0, 1]))
    columns = observer.columns()
    assert columns["sample_id"].tolist() == [sample, 5]
    config = config_of("infobatch")
    from epochal.data.samples.table import update

    table = update(
        None,
        columns,
        epoch=0,
        sample_ids_N=np.array([5, sample]),
        labels_N=None,
        confidence=config.easy_from,
    )
    plan, table = planned(table, config, context_of(config, 1))
    write_samples(table, tmp_path / "t")
    stored = read_samples(tmp_path / "t")
    assert stored["sample_id"].tolist() == [5, sample]
    assert stored.keep_by_id(np.array([sample]))[0] == plan.keep_N[1]


def test_infobatch_weights_do_not_raise_the_learning_rate():
    """Its mean weight was about N / n, which raised the rate of every epoch that it shortened."""
    found = course(config_of("infobatch"), count=2000, epochs=10)
    for keep, weight in zip(found.keeps, found.weights, strict=True):
        assert weight[keep].mean(dtype=float) == pytest.approx(1, abs=1e-5)


def test_infobatch_draws_by_seed_epoch_and_sample_and_from_no_global_generator():
    """It seeded NumPy by the epoch alone: every run of every seed pruned the same samples."""
    state = np.random.get_state()[1].tolist()
    runs = [course(config_of("infobatch"), count=400, epochs=5, seed=seed) for seed in (1, 2)]
    assert np.random.get_state()[1].tolist() == state
    assert runs[0].keeps[0].tolist() != runs[1].keeps[0].tolist()
    assert runs[0].keeps[0].tolist() != runs[0].keeps[1].tolist()


def test_infobatch_keeps_half_of_the_well_learned_at_twice_the_weight_of_others():
    config = config_of("infobatch", warm_up=0, final_full=0)
    table = mined(config, observations(np.arange(5000)), count=5000)
    plan = planned(table, config, context_of(config, 1))[0]
    learned_well = table["loss"] < table["loss"].mean()
    assert plan.keep_N[~learned_well].all()
    assert plan.keep_N[learned_well].mean() == pytest.approx(0.5, abs=0.03)
    others, low = (plan.weight_N[plan.keep_N & one] for one in (~learned_well, learned_well))
    assert np.allclose(low.mean() / others.mean(), 2, atol=1e-5)


def test_infobatch_scores_say_how_old_they_are():
    """Samples that it left out kept stale losses, and nothing said so."""
    found = course(config_of("infobatch", revisit=3), count=500, epochs=12)
    for epoch, table in enumerate(found.tables):
        assert (epoch - table["epoch_seen"] <= 3).all()


def test_kakurenbo_confidence_is_over_classes_and_not_over_the_batch():
    """Its scripts took the softmax over the batch: one sure sample made all others unsure."""
    logits = torch.tensor([[9.0, 0.0, 0.0]] * 8)
    target = torch.zeros(8, dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    observer = Observer()
    observer.take(np.arange(8), StepOutput(loss, logits), target)
    assert (observer.columns()["confidence"] > 0.99).all()
    assert float(torch.softmax(logits, dim=0).max()) < 0.2


def test_kakurenbo_moves_back_what_is_wrong_or_unsure_and_hides_no_more_than_its_share():
    config = config_of("kakurenbo", warm_up=0, final_full=0, revisit=1000)
    columns = easy(np.arange(1000), labels=np.zeros(1000, int))
    columns["loss"] = np.linspace(0.001, 1, 1000, dtype=np.float32)
    columns["correct"][:100] = False
    columns["confidence"][100:150] = 0.6
    table = mined(config, columns, count=1000)
    context = PlanContext(epoch=1, full=False, seed=7, budget=0.7)
    keep = planned(table, config, context)[0].keep_N
    assert keep[:150].all()
    assert keep[305:].all()
    assert not keep[160:290].any() or (~keep[160:290]).mean() > 0.98


def test_kakurenbo_counts_copies_once():
    """Its sums over ranks added up copies of one sample."""
    config = config_of("kakurenbo")
    columns = learned(np.arange(10), seed=1, epoch=1, labels=np.zeros(10, int))
    twice = {name: np.concatenate([one, one]) for name, one in columns.items()}
    one, other = (mined(config, seen, count=10) for seen in (columns, twice))
    for name in one.columns:
        assert one[name].tobytes() == other[name].tobytes(), name
