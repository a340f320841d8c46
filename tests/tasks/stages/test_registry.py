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
    assert found["train", 0] == ("f33e09c21af4f83d0b876f48884812b9a27857c1da622e186a42415cdab9cd72")
    assert found["train", 7] == ("9a7728ff8e0230115b57742002e7f2e9e5d39aac9a3f2b706f0f15883bdf83fb")
    assert found["validate", 7] == (
        "05b637b86a3e1e3f2a5c8246defe93cc92ce6609ec0236d7b8f9da0ee67496c0"
    )
    assert found["mine", 7] == ("18bbb3abfc62357af45552f7570291dd88d91504fd6a1465f7b9482c67960f19")


def test_golden_keys_of_batches_are_pinned_by_either_name():
    acting = {"kind": "variable_batch", "sizes": [64, 128], "size": 64, "repeats": 2}
    for changes in ({"batches": acting}, {"sampler": acting}):
        assert keys(**changes)["train", 0] == (
            "96461dee06ae4e7eb043be6e228c33ac7624ad41e0f133504956470ae398cc13"
        )


MINED = {
    "easy_skip": "fd8119a769fe9b8a8f2f6e457865b9306d9ef275070b532c2e155823a696624a",
    "importance": "bff0e252e759e43b19fb3b914c6d4689c722ba5712571d0e2a9f42affba1b037",
    "infobatch": "0a39d4a2e6a9958d34a6375568f959668213456ac1801614096baef60e8fa7fc",
    "kakurenbo": "1aee16cf4663785bbf353d3a342d55b32dffdd9999c995ce10ce22810ae07791",
    "cvnets": "3dbfcdf1f74fce109d64bbc65c91e8ced7f2a94cd035f75fde71093a79427b40",
    "seta": "3eb12e8d049b481a79fc913860e867586a10e39e54b592991684da36fd72ec9c",
    "hard_mining": "3fa85012d0bdb3628837dc70ee4ba04ace5b19ad33529875de4446c1efec49e9",
    "selective_backprop": "ec51fb6c93c7ba34b7d0c81b95c51a450cc02f0b123107dce0737530ff396e07",
    "curriculum": "d8e85452ac1610dc960533a1727b33c11677d1f3f408e28acd16e573b5cd97ee",
    "random": "7b1027762f2fb725e31a1ac00e3666ba60fc970772dcf638e145ded31ab91e20",
    "custom": "99b1e3fe200e3f8c1eacd654f1bdc1d44525acdef0841b6bc3ac7df0d351dc78",
}


@pytest.mark.parametrize("policy", MINED)
def test_golden_keys_of_every_policy_are_pinned(policy):
    fields = {"target": "own:plan"} if policy == "custom" else {}
    found = keys(sampling={"policy": policy, "label_noise": "drop", **fields})
    assert found["mine", 7] == MINED[policy]


TRANSFORMED = {
    "target": "epochal.data.augment:transformed",
    "args": {"data": {"target": "data:train"}, "transform": {"target": "data:flip", "args": {}}},
}


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
        ({"loader__collate": {"target": "a:b"}}, all_of("train", "validate", "mine")),
        ({"loader__batch_tokens": 900}, all_of("train", "validate", "mine")),
        ({"batches": {"by_length": 50}}, all_of("train", "validate", "mine")),
        ({"batches": {"shuffle": "global"}}, all_of("train", "validate", "mine")),
        ({"batches": {"shuffle_blocks": 4}}, all_of("train", "validate", "mine")),
        ({"batches": {"shuffle": "auto"}}, set()),
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
        ({"train_data__args": {"transform": 1}}, set()),
        ({"train_data": TRANSFORMED}, all_of("train", "validate", "mine")),
        ({"validation_data": TRANSFORMED}, all_of("validate")),
        ({"train_data": {"target": "epochal.data.datasets:digits", "args": {"a": 1}}}, set()),
        ({"augment": {"train": [{"kind": "flip"}]}}, all_of("train", "validate", "mine")),
        ({"augment": {"train": [], "validation": [{"kind": "to_float"}]}}, all_of("validate")),
        ({"augment": {"train": [], "validation": [], "keep": ["x"]}}, set()),
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
