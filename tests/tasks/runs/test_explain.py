"""Why a stage would run: the field, from what to what; root causes, not their echoes."""

from dataclasses import replace

import pytest
from support.numbers.stage_keys import FACTS, config

from epochal.tasks.planning.stage import DatasetFacts, RunInputs
from epochal.tasks.runs.explain import OTHER_DIGESTS, Comparison
from epochal.tasks.runs.run_plans import PlannedStage, RunPlan
from epochal.tasks.stages.registry import list_stages


def plan_of(settings, run_inputs=FACTS):
    return RunPlan(
        run="run",
        generation=1,
        branched_from=None,
        shared_epochs=None,
        stages=tuple(
            PlannedStage(kind=one.kind, epoch=one.epoch, key=one.known_key)
            for one in list_stages(settings, run_inputs)
        ),
        config=settings.model_dump(mode="json"),
        sources={name: dict(files) for name, files in run_inputs.sources.items()},
        train_data=run_inputs.train_data.fingerprint,
        validation_data=run_inputs.validation_data.fingerprint,
    )


def reasons(kind, epoch, *, before=None, run_inputs=FACTS, **after):
    stages = list_stages(config(**after), run_inputs)
    comparison = Comparison(config(**after), stages, plan_of(config(**(before or {}))))
    return comparison.reasons(next(one for one in stages if (one.kind, one.epoch) == (kind, epoch)))


@pytest.mark.parametrize(
    ("place", "changes", "expected"),
    [
        (("train", 0), {"optimizer__args": {"lr": 0.2}}, ("optimizer.args.lr: 0.1 → 0.2",)),
        (("mine", 6), {"optimizer__args": {"lr": 0.2}}, ("optimizer.args.lr: 0.1 → 0.2",)),
        (("train", 3), {"model__args": {"width": 9}}, ("model.args.width: 8 → 9",)),
        (("train", 3), {"seed": 8}, ("seed: 7 → 8",)),
        (("validate", 7), {"loader__batch_size": 64}, ("loader.batch_size: 32 → 64",)),
        (
            ("train", 6),
            {"schedule": {"kind": "multi_step", "milestones": [5], "factor": 0.5}},
            ("schedule.factor: 0.1 → 0.5",),
        ),
        (("train", 7), {"epochs": 12}, ("epochs: 8 → 12",)),
        (("train", 11), {"epochs": 12}, ("epochs: 8 → 12",)),
        (
            ("train", 1),
            {"optimizer__layer_decay": 0.5},
            ("optimizer.layer_decay: not set → 0.5",),
        ),
        (
            ("train", 0),
            {"optimizer__frozen": [{"match": "x", "until": 2}]},
            ('optimizer.frozen: [] → [{"match": "x", "until": 2}]',),
        ),
        (
            ("train", 0),
            {"validation": {"every_updates": 9}},  # what it is measured on has not changed
            ("validation.every_updates: not set → 9",),
        ),
        (("train", 4), {"epochs": 12}, ()),
        (("train", 4), {"loader__workers": 4}, ()),
    ],
)
def test_the_field_is_named_from_what_to_what(place, changes, expected):
    assert reasons(*place, **changes) == expected


def test_a_plan_that_names_the_batches_as_before_is_compared_by_the_name_of_now():
    before = config(batches={"repeats": 2})
    plan = plan_of(before)
    plan.config["sampler"] = plan.config.pop("batches")
    after = config(batches={"repeats": 3})
    stages = list_stages(after, FACTS)
    comparison = Comparison(after, stages, RunPlan.model_validate(plan.model_dump()))
    assert comparison.reasons(stages[1]) == ("batches.repeats: 2 → 3",)
    same = list_stages(before, FACTS)
    assert Comparison(before, same, plan).shared == len(same)


def test_a_policy_that_is_switched_on_is_named():
    found = reasons("train", 2, before={"sampling": {"policy": "none"}})
    assert "sampling.policy: none → easy_skip" in found


def test_an_edited_file_is_named():
    run_inputs = RunInputs(
        sources={**FACTS.sources, "model": {"model.py": "e" * 64}},
        train_data=FACTS.train_data,
        validation_data=FACTS.validation_data,
    )
    assert reasons("train", 5, run_inputs=run_inputs) == (
        "model.source model.py: aaaaaaaa → eeeeeeee",
    )


def test_a_plan_whose_files_were_digested_by_their_text_tells_no_edits():
    now = {"sources": {**FACTS.sources, "model": {"model.py": "e" * 64}}}
    run_inputs = replace(FACTS, **now, definitions={"model.py": {"Net": "1" * 16}})
    stages = list_stages(config(), run_inputs)
    comparison = Comparison(config(), stages, plan_of(config()), definitions=run_inputs.definitions)
    assert comparison.reasons(stages[1]) == (OTHER_DIGESTS,)


def test_other_content_of_the_data_is_named():
    run_inputs = RunInputs(
        sources=FACTS.sources,
        train_data=DatasetFacts("f" * 64),
        validation_data=FACTS.validation_data,
    )
    assert reasons("train", 1, run_inputs=run_inputs) == (
        "train_data content: cccccccc → ffffffff",
    )


def test_several_causes_are_all_named_once():
    found = reasons("mine", 3, optimizer__args={"lr": 0.2}, seed=9)
    assert sorted(found) == ["optimizer.args.lr: 0.1 → 0.2", "seed: 7 → 9"]
