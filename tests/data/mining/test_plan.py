"""The plan of an epoch: who was kept for another reason than the policy's weighs as such."""

import numpy as np
import pytest
from support.numbers.random_observations import observations
from support.runs.policy_runs import config_of, context_of, mined, planned


def test_who_is_kept_for_the_floor_alone_weighs_as_one_who_had_to_train():
    config = config_of("infobatch", warm_up=0, final_full=0, floor=0.9)
    table = mined(config, observations(np.arange(2000)), count=2000)
    free = config_of("infobatch", warm_up=0, final_full=0, floor=0.01)
    chosen = planned(table, free, context_of(free, 1))[0].keep_N
    plan = planned(table, config, context_of(config, 1))[0]
    learned = table["loss"] < table["loss"].mean()
    had_to = plan.weight_N[~learned][0]
    assert np.all(plan.weight_N[plan.keep_N & ~chosen] == had_to)
    assert plan.weight_N[chosen & learned] == pytest.approx(2 * had_to)
