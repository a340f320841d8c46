"""What policies declare is what config, keys, mining and plans go by."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from support.runs.policy_runs import config_of, context_of, learned, mined, planned

from epochal.data.config.loader import SamplingConfig
from epochal.data.mining.shards import mine_files
from epochal.data.policies import POLICIES
from epochal.data.tables.schemas import OBSERVATIONS, SAMPLES
from epochal.data.tables.writing import write_table

every_policy = pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
COUNT = 300


def after_an_epoch(config):
    columns = learned(np.arange(COUNT), seed=1, epoch=8, labels=np.arange(COUNT) % 3)
    return columns, mined(config, columns, count=COUNT, epoch=3)


def test_reading_the_declarations_imports_no_numpy():
    code = (
        "import sys, epochal.tasks.config.run as run\n"
        "assert run.SamplingConfig(policy='importance').longest_absence == 5\n"
        "assert 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@every_policy
def test_a_policy_has_a_name_of_its_own_and_one_way_to_choose(name):
    policy = POLICIES[name]
    assert policy.name == name
    assert policy.summary
    assert (policy.choose is None) != (policy.each is None)
    assert (policy.carry is None) == (not policy.state)


@every_policy
def test_a_policy_takes_fields_that_there_are(name):
    assert set(POLICIES[name].takes) <= set(SamplingConfig.model_fields)


@every_policy
def test_what_a_policy_carries_is_in_the_table_and_nothing_else(name):
    config = config_of(name)
    _, table = after_an_epoch(config)
    optional = {column.name for column in SAMPLES.columns if not column.required}
    assert set(POLICIES[name].state) == set(table.columns) & optional
    _, after = planned(table, config, context_of(config, 4))
    assert set(after.columns) == set(table.columns)


def test_a_policy_of_one_declaration_is_checked_keyed_mined_and_planned_by_it(
    tmp_path, monkeypatch
):
    """A policy more in the registry is all that it needs."""

    def odd(pool, settings):
        assert settings.easy_from == 0.6
        return pool.rest(pool["sample_id"] % 2 == 1)

    odds = replace(
        POLICIES["random"], name="random", takes=("confidence",), confidence=0.6, revisit=77,
        batch="proportional", ends_full=False, observes=("p_true",), choose=odd,
    )  # fmt: skip
    monkeypatch.setitem(POLICIES, "random", odds)
    config = SamplingConfig(policy="random")
    assert config.key_slice() == {
        "policy": "random", "confidence": 0.6, "revisit": 77, "floor": 0.1,
    }  # fmt: skip
    assert (config.batch_rule, config.observations) == ("proportional", {"p_true"})
    assert not config.phase(7, epochs=8).full
    with pytest.raises(ValidationError, match="budget: policy random does not go by it"):
        SamplingConfig(policy="random", budget=0.5)
    columns, _ = after_an_epoch(config)
    write_table(columns, tmp_path / "seen", schema=OBSERVATIONS, metadata={})
    done = mine_files(
        None, tmp_path / "seen", tmp_path / "made", config, sample_ids_N=np.arange(COUNT),
        epoch=3, epochs=8, seed=7, metadata=lambda _: {}, shard_rows=99,
    )  # fmt: skip
    assert done.kept == COUNT // 2
