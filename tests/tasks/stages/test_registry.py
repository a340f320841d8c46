"""Keys: exactly what acts in a stage is in its key; golden digests are pinned."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.numbers.stage_keys import FACTS, all_of, changed, config, keys

from epochal.tasks.checkpoints.end_of_epoch import COMPANIONS
from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.stages.registry import KINDS, list_stages, loaded

EVERYTHING = {("initialise", None)} | all_of("train", "validate", "mine")


def test_golden_keys_are_pinned():
    found = keys()
    assert found["initialise", None] == (
        "0b714d3a40fe991a6e1eece00643f55e73e694d590e89f91c190b32d8204fd49"
    )
    assert found["train", 0] == ("0f69039c05471330e7a0d025c7bab84fd98a74cda522210ab8ee81c43d94c873")
    assert found["train", 7] == ("50f470150d67527f37ddf77631227bd80238fd7791160f13141732375b59ebdf")
    assert found["validate", 7] == (
        "bf683f5133beedf0478c3167a9aa07543f1f81c1f7824d94496e0ec307f170ff"
    )
    assert found["mine", 7] == ("cacbf240e94b196dc0d63fca678290c699056a8da949e4b995d4a894aed80d85")


def test_golden_keys_of_batches_are_pinned_by_either_name():
    acting = {"kind": "variable_batch", "sizes": [64, 128], "size": 64, "repeats": 2}
    for changes in ({"batches": acting}, {"sampler": acting}):
        assert keys(**changes)["train", 0] == (
            "90d3a36200dba61b966f322885a6f648600cb507164f26aa7c0bb1350a5fe6cd"
        )


MINED = {
    "easy_skip": "40c5f2cdacc0e4760d65b9cf50225062e0e284b17171a130ac216b31f72ffe24",
    "importance": "fd61fe028bd7433b3c812a491363735c01231d86b037baac9fd05d57afed01d8",
    "infobatch": "d19acf411e2e4c7e0b46a92a1beaecbf3a639462edf120b738c9b30461c6b4c0",
    "kakurenbo": "7dcad16e6e7a903a9a0e191f278ce00664ea54f9e03f88b2da4cfc16aa449149",
    "cvnets": "d8c30d4ab2cdbf85cf0aebf10eba28ea6ad49bb3baec60b8d016d7a197756887",
    "seta": "9aecb411b6e2a51e8bd7c8219e58b81f7b730435b96d30e600a4d3e7a052c84a",
    "hard_mining": "624615b53293d0ed36dcfde7e97c26c5d0b81a82beb806e76c0a3ef90580f28a",
    "selective_backprop": "1d5188dd3692bb8139a9aa8142bab427aa665e85c6f47341f480eba7ef82f96c",
    "curriculum": "179b7f46b171af2a599b78d17ae94aa48d4c44dee581e5e1b864fc81c3826713",
    "random": "c374b65a7440433a29c67890b99cc84549d89cdfe8f9222cec140e2da1e3aeb1",
    "custom": "ee512183e05e0238b33e714915d6a7ce928b807dbb5e4417d2956a909d253a57",
}


@pytest.mark.parametrize("policy", MINED)
def test_golden_keys_of_every_policy_are_pinned(policy):
    fields = {"target": "own:plan"} if policy == "custom" else {}
    found = keys(sampling={"policy": policy, "label_noise": "drop", **fields})
    assert found["mine", 7] == MINED[policy]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"seed": 8}, EVERYTHING),
        ({"model__args": {"width": 9}}, EVERYTHING),
        ({"loader__batch_size": 64}, all_of("train", "validate", "mine")),
        ({"loader__drop_last": True}, all_of("train", "validate", "mine")),
        ({"loss": {"target": "torch.nn:MultiMarginLoss"}}, all_of("train", "validate", "mine")),
        ({"optimizer__args": {"lr": 0.2}}, all_of("train", "validate", "mine")),
        ({"gradients": {"accumulate": 2}}, all_of("train", "validate", "mine")),
        ({"gradients": {"clip_norm": 2.0}}, all_of("train", "validate", "mine")),
        (
            {"sampling__confidence": 0.8},
            all_of("train", "validate", first=1) | all_of("mine"),
        ),
        (
            {"schedule": {"kind": "multi_step", "milestones": [5], "factor": 0.2}},
            all_of("train", "validate", "mine", first=5),
        ),
        ({"metrics": {"validation": ["accuracy", "loss"]}}, all_of("validate")),
        ({"loader__validation_batch_size": 64}, all_of("validate")),
        ({"loader__workers": 2}, set()),
        ({"name": "other"}, set()),
        ({"store": "s3://bucket/x"}, set()),
        ({"folder": "/elsewhere"}, set()),
        ({"checkpoint": {"every_seconds": 5, "keep_last": 2}}, set()),
        ({"tracking": {"uri": "http://x", "experiment": "y", "log_every_updates": 10}}, set()),
        ({"gradients": {"per_group": False}}, set()),
        ({"threads": 1}, set()),
        ({"device": "cpu"}, set()),
        ({"reproducibility": "strict"}, set()),
        ({"metrics": {"best": "accuracy"}}, set()),
        ({"early_stopping": {"patience": 3}}, set()),
        ({"mixing": {"mixup": 0.2}}, all_of("train", "validate", "mine")),
        ({"validation": {"every_updates": 10}}, all_of("train", "validate", "mine")),
        ({"start": {"from": "./w.safetensors"}}, EVERYTHING),
    ],
)
def test_a_change_reaches_exactly_the_stages_that_depend_on_it(changes, expected):
    assert changed(**changes) == expected


def test_an_edited_model_changes_everything():
    run_inputs = RunInputs(
        sources={**FACTS.sources, "model": {"model.py": "e" * 64}},
        train_data=FACTS.train_data,
        validation_data=FACTS.validation_data,
    )
    assert changed(run_inputs) == EVERYTHING


def test_other_data_changes_what_reads_it():
    other = DatasetFacts("f" * 64)
    train = RunInputs(
        sources=FACTS.sources, train_data=other, validation_data=FACTS.validation_data
    )
    assert changed(train) == all_of("train", "validate", "mine")
    validation = RunInputs(
        sources=FACTS.sources, train_data=FACTS.train_data, validation_data=other
    )
    assert changed(validation) == all_of("validate")


def test_extending_a_constant_rate_without_policy_keeps_every_key():
    short = keys(schedule={"kind": "constant"}, sampling={"policy": "none"})
    long = keys(schedule={"kind": "constant"}, sampling={"policy": "none"}, epochs=12)
    assert {place: long[place] for place in short} == short


def test_extending_without_a_final_phase_keeps_every_key():
    options = {"schedule": {"kind": "constant"}, "sampling__final_full": 0}
    short, long = keys(**options), keys(**options, epochs=12)
    assert {place: long[place] for place in short} == short


def test_extending_with_a_final_phase_recomputes_from_its_first_epoch():
    options = {"schedule": {"kind": "constant"}}
    short, long = keys(**options), keys(**options, epochs=12)
    lost = {place for place in short if short[place] != long[place]}
    assert lost == all_of("train", "validate", "mine", first=6) | {("mine", 5)}


def test_without_a_policy_nothing_mines_and_epoch_zero_is_shared():
    with_policy, without = keys(), keys(sampling={"policy": "none"})
    assert not any(kind == "mine" for kind, _ in without)
    assert with_policy["train", 0] == without["train", 0]


def test_unread_data_leaves_keys_open_where_it_acts():
    run_inputs = RunInputs(
        sources={}, train_data=DatasetFacts(None), validation_data=DatasetFacts("d" * 64)
    )
    found = keys(run_inputs)
    assert found["initialise", None] is not None
    assert all(key is None for place, key in found.items() if place[0] != "initialise")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(["constant", "warmup"]))
def test_two_lengths_share_what_acts_alike(one, other, kind):
    schedule = {"kind": "constant", "warmup": 1 if kind == "warmup" else 0}
    short, long = sorted((one, other))
    options = {"schedule": schedule, "sampling": {"policy": "none"}}
    first, second = keys(epochs=short, **options), keys(epochs=long, **options)
    assert all(second[place] == key for place, key in first.items())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20))
def test_all_keys_of_a_run_differ(epochs):
    found = keys(epochs=epochs)
    assert len(set(found.values())) == len(found)


def test_the_source_of_a_metric_is_in_the_keys_of_what_it_measures_alone():
    sources = {**FACTS.sources, "metrics.own": {"own.py": "e" * 64}}
    assert changed(replace(FACTS, sources=sources)) == all_of("validate")


@pytest.mark.parametrize(("weights", "scored"), [("model", ("model",)), ("ema", ("model", "ema"))])
def test_a_stage_loads_of_its_parents_what_it_computes_with(weights, scored):
    run = config(
        epochs=3,
        schedule={"kind": "constant"},
        ema={"decay": 0.9},
        averaging={"last": 1},
        sampling={"policy": "importance", "scoring": {"weights": weights}},
    )
    loads = {}
    for stage in list_stages(run, FACTS):
        for role in stage.parents:
            loads.setdefault((stage.kind, role), set()).add(loaded(stage, role, {}))
    assert loads == {
        ("train", "parent"): {("model", "optimizer", "state", "ema", *COMPANIONS)},
        ("train", "samples"): {("samples",)},
        ("validate", "parent"): {("model", "ema", *COMPANIONS)},
        ("score", "parent"): {(*scored, *COMPANIONS)},
        ("mine", "observations"): {("observations",)},
        ("mine", "scores"): {("scores",)},
        ("mine", "samples"): {("samples",)},
        ("average", "train.2"): {("model", *COMPANIONS)},
        ("validate_average", "parent"): {("model", *COMPANIONS)},
    }


def test_a_mine_stage_tells_shares_of_the_samples():
    values = {"kept": 30, "samples": 40, "kept_fraction": 0.75, "label_noise": 0.2, "suspects": 10}
    assert KINDS["mine"].points(values) == {
        "sampling/kept": 0.75, "sampling/label_noise": 0.2, "sampling/suspects": 0.25,
    }  # fmt: skip


def test_scores_are_mined_in_the_epoch_of_their_pass_alone():
    scoring = {"weights": "model", "every": 2}
    run = config(epochs=6, sampling={"policy": "easy_skip", "final_full": 0, "scoring": scoring})
    mined = {
        stage.epoch: stage.parents["scores"].epoch if "scores" in stage.parents else None
        for stage in list_stages(run, FACTS)
        if stage.kind == "mine"
    }
    assert {epoch: mined[epoch] for epoch in range(5)} == {0: None, 1: 1, 2: None, 3: 3, 4: None}


def test_a_file_that_a_target_reads_changes_what_it_acts_in():
    of_model = replace(FACTS, files={"model": {"./weights.bin": "e" * 64}})
    assert changed(of_model) == EVERYTHING
    of_loss = replace(FACTS, files={"loss": {"./costs.json": "e" * 64}})
    assert changed(of_loss) == all_of("train", "validate", "mine")
    sources = {**FACTS.sources, "metrics.own": {}}
    of_metric = replace(FACTS, sources=sources, files={"metrics.own": {"./x": "e" * 64}})
    assert changed(of_metric) == all_of("validate")


def test_versions_of_packages_and_functions_of_files_change_no_key():
    packages = replace(FACTS, packages={"model": {"timm": "1.0"}})
    definitions = replace(FACTS, definitions={"model.py": {"Net": "0" * 16}})
    assert changed(packages) == changed(definitions) == set()
