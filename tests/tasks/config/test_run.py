"""Parts of a config that do not go together: the message names both."""

import pytest
from pydantic import ValidationError
from support.numbers.stage_keys import config

from epochal.engine.config import GradientsConfig, PrecisionConfig, ValidationConfig
from epochal.tasks.config.run import SECTIONS, RunConfig, flatten

UPDATES = {"kind": "constant", "warmup": 10, "unit": "updates"}
SGD = {"target": "torch.optim:SGD", "args": {"lr": 0.1}}
PLAIN = {"sampling": {"policy": "none"}, "schedule": {"kind": "constant"}}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"schedule": UPDATES, "gradients": {"accumulate": 2, "accumulate_from": 3}},
            "schedule.unit: .* gradients.accumulate_from: 3 changes it",
        ),
        (
            {"schedule": UPDATES, "sampling": {"policy": "easy_skip"}},
            "schedule.unit: .* sampling.policy: 'easy_skip' changes it",
        ),
        (
            {"schedule": UPDATES, "sampling": {"policy": "none"}, "loader__batch_tokens": 90},
            "schedule.unit: .* loader.batch_tokens: 90 changes it",
        ),
        (
            {"max_updates": 9, "sampling": {"policy": "none"}, "loader__batch_tokens": 90},
            "max_updates: .* loader.batch_tokens changes",
        ),
        (
            {"loader__batch_tokens": 90, "batches": {"kind": "multi_scale", "sizes": [32]}},
            "loader.batch_tokens: .*kind: multi_scale",
        ),
        ({"loader__batch_tokens": 90, "loader__drop_last": True}, "drop_last: with batch_tokens"),
        (
            {"loader__epoch_samples": 90, "sampling": {"policy": "easy_skip"}},
            "loader.epoch_samples: .* sampling.policy: easy_skip",
        ),
        (
            {**PLAIN, "loader__epoch_samples": 90, "batches": {"repeats": 2}},
            "loader.epoch_samples: .* batches.repeats",
        ),
        (
            {**PLAIN, "loader__epoch_samples": 90, "batches": {"class_balanced": True}},
            "loader.epoch_samples: .* batches.class_balanced",
        ),
        (
            {"batches": {"class_balanced": True, "shuffle": "blocks"}},
            "shuffle: blocks keeps .* class_balanced draws",
        ),
        (
            {"batches": {"shuffle": "global", "shuffle_blocks": 4}},
            "shuffle_blocks: it acts in the order by blocks",
        ),
        (
            {"batches": {"kind": "variable_batch", "size": 32, "sizes": [32], "by_length": 9}},
            "by_length: it cuts micro-batches of one number",
        ),
        (
            {"max_updates": 9, "sampling": {"policy": "easy_skip"}},
            "max_updates: .* sampling.policy: easy_skip changes",
        ),
        ({"early_stopping": {"metric": "f1"}}, "'f1' is not measured; there is accuracy, "),
        ({"metrics": {"best": "ema/loss"}}, "metrics.best: .* give `ema`"),
        ({"averaging": {"best": 9}}, "averaging: best: 9 of a run of 8 epochs"),
        ({"schedule": {"kind": "constant", "warmup": 9}}, "warmup: 9 epochs do not fit into 8"),
        ({"start": {"from": "./weights.PT"}}, "is a pickle"),
        ({"launch": {"shard_blocks": ["Layer"]}}, "launch.shard_blocks: nothing is sharded"),
        (
            {"launch": {"shard_model": True, "kind": "ray"}},
            "launch.shard_model: .* use launch.kind: local",
        ),
        (
            {"launch": {"shard_model": True}, "precision": {"dtype": "float16"}},
            "launch.shard_model: not with precision.dtype: float16",
        ),
        (
            {"launch": {"shard_model": True}, "precision": {"compile": True}},
            "launch.shard_model: not with precision.compile",
        ),
        (
            {"launch": {"shard_model": True}, "precision": {"channels_last": True}},
            "launch.shard_model: not with precision.channels_last",
        ),
        (
            {"launch": {"shard_model": True}, "optimizer": {**SGD, "frozen": [{"match": "a"}]}},
            "launch.shard_model: not with optimizer.frozen",
        ),
    ],
)
def test_what_does_not_go_together_is_named(changes, problem):
    with pytest.raises(ValidationError, match=problem):
        config(**{**PLAIN, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": UPDATES, "gradients": {"accumulate": 2}},
        {"max_updates": 9},
        {"metrics": {"best": "ema/loss"}, "ema": {}},
        {"averaging": {"best": 8}},
        {"schedule": {"kind": "constant", "warmup": 8}},
    ],
)
def test_what_goes_together_is_taken(changes):
    assert config(**{**PLAIN, **changes}).epochs == 8


@pytest.mark.parametrize("name", ["loss", *SECTIONS])
def test_a_section_that_is_not_given_is_what_validation_makes_of_nothing(name):
    """Defaults are made without validation, or importing them would build their models."""
    usual = RunConfig.model_fields[name].default
    given = {"target": usual.target} if name == "loss" else {}
    assert usual == type(usual).model_validate(given)
    assert usual.model_dump(mode="json") == type(usual)(**given).model_dump(mode="json")


PRECISE = PrecisionConfig(dtype="bfloat16", compile=True)
CLIPPED = GradientsConfig(clip_norm=1, accumulate=3, depth=2)


@pytest.mark.parametrize("section", [PRECISE, PrecisionConfig(), ValidationConfig(every_updates=5)])
def test_a_key_holds_of_a_section_what_a_dump_without_the_usual_holds(section):
    assert section.key_slice() == section.model_dump(mode="json", exclude_defaults=True)


def test_a_key_holds_of_the_gradients_what_a_dump_holds():
    whole = CLIPPED.model_dump(mode="json", exclude={"per_group", "accumulate_from"})
    dealt = CLIPPED.model_copy(update={"shards": 4})
    assert dealt.key_slice(0) == {**whole, "shards": 4}
    del whole["shards"]  # in the key where it acts
    assert repr(CLIPPED.key_slice(0)) == repr(whole)  # 1.0 is no 1 in a key


def test_two_leaves_of_a_config_never_have_one_path():
    nested = {"a.b": 1, "a": {"b": 2, '"': 3, "": 4, "c": {}}, "d": [1]}
    assert dict(flatten(nested)) == {
        '"a.b"': 1, "a.b": 2, 'a."\\""': 3, 'a.""': 4, "a.c": {}, "d": [1],
    }  # fmt: skip
