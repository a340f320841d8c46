"""Optuna's proposals: they follow from the results alone, and a sweep goes on with the same."""

import json

import pytest
from support.runs.sweeps import KNOWN, SweepProject, made_up, worked

from epochal.data.errors import ConfigError

pytest.importorskip("optuna")
VARY = {"optimizer.args.lr": {"log_uniform": [1e-4, 1.0]}, "seed": {"choice": [1, 2, 3]}}


def near(config, _epoch):
    """Best at a rate of 0.01."""
    import math

    return 1 / (1 + abs(math.log10(config.optimizer.args["lr"]) + 2))


def project(folder, *, trials=6, at_once=2, **more):
    optuna = {"trials": trials, "at_once": at_once, **more}
    return SweepProject(
        folder,
        vary=VARY,
        optuna=optuna,
        run={"epochs": 1, "schedule": {"kind": "constant"}, **KNOWN},
    )


def proposed(work):
    return [run.member.set for run in work.tree.runs.values()]


def test_an_interrupted_search_goes_on_with_the_same_trials(tmp_path):
    unbroken = project(tmp_path / "unbroken").work()
    assert unbroken.proposals_left == 4
    worked(unbroken, made_up(near))
    assert len(proposed(unbroken)) == 6
    assert unbroken.proposals_left == 0
    broken = project(tmp_path / "broken")
    for most in (1, 2, 1, 9):
        last = broken.work()
        worked(last, made_up(near), most=most)
    assert proposed(last) == proposed(unbroken)
    assert last.ranked[0] == unbroken.ranked[0]


def test_proposals_that_are_kept_are_not_asked_for_again(tmp_path):
    first = project(tmp_path / "kept")
    worked(first.work(), made_up(near))
    kept = sorted(first.store.glob("sweeps/blobs/*/*.json"))
    assert [path.name for path in kept] == ["000000.json", "000002.json", "000004.json"]
    body = json.loads(kept[0].read_text())["body"]
    assert [set(one) for one in body["trials"]] == [set(VARY)] * 2
    more = project(tmp_path / "kept", trials=8).work()
    assert more.proposals_left == 2
    other = project(tmp_path / "kept", seed=5).work()
    assert proposed(other) != proposed(more)[:2]


def test_the_next_proposals_follow_from_the_results(tmp_path):
    import math

    def far(config, epoch):
        return 1 - near(config, epoch)

    args = {"n_startup_trials": 6}
    given = {
        "trials": 12,
        "at_once": 6,
        "sampler": {"target": "optuna.samplers:TPESampler", "args": args},
    }
    found = []
    for name, measure in (("one", near), ("other", far)):
        work = project(tmp_path / name, **given).work()
        worked(work, made_up(measure))
        found.append([abs(math.log10(own["optimizer.args.lr"]) + 2) for own in proposed(work)])
    near_ones, far_ones = found
    assert near_ones[:6] == far_ones[:6]
    assert sum(near_ones[6:]) < sum(far_ones[6:])


def test_a_value_that_a_config_refuses_is_told_before_the_first_trial(tmp_path):
    at = SweepProject(
        tmp_path / "project", vary={"epochs": {"int": [0, 3]}}, optuna={"trials": 2}, run=KNOWN
    )
    with pytest.raises(ConfigError, match="vary.epochs"):
        at.work()


def test_a_sampler_that_takes_no_seed_is_refused(tmp_path):
    at = project(tmp_path / "project", sampler={"target": "optuna.samplers:GridSampler"})
    with pytest.raises(ConfigError, match="optuna.sampler: optuna.samplers:GridSampler"):
        at.work()
